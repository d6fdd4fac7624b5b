"""Linear attention together with the projections around it, where no gradient is wanted.

Of the whole map only the values exist, and the result: queries, keys and what attention gives them are made, used and
forgotten while they lie in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatten_dense.layers.focused_linear_attention import FocusedLinearAttention
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.forms import forced_form
from flatten_dense.ops.native import block
from flatten_dense.ops.native.arguments import Affine, Encoding


def can_stream_attention(x: Tensor, core: nn.Module, *layers: nn.Module) -> bool:
    """Whether :func:`stream_attention` takes tokens ``[B, N, C]``, this core and these layers."""
    return (
        isinstance(core, FocusedLinearAttention)
        and forced_form() in (None, "native")
        and block.takes_layers(x, core.dwc, *layers)
        and block.takes_attention(x, core.dwc, core.num_heads, core.focusing_factor)
        and core.scale.dtype == core.positional_encoding.dtype == x.dtype
    )


def stream_attention(
    x: Tensor,
    norm: nn.LayerNorm | None,
    qkv: Sequence[Affine],
    core: FocusedLinearAttention,
    proj: nn.Linear,
    size: Size,
    residual: bool,
) -> Tensor:
    """``proj(core(q(y), k(y), v(y)))`` with ``y = norm(x)``, and ``x`` if ``residual``.

    Args:
        x: tokens ``[B, N, C]`` of a map of ``size``; left as it is.
        norm: over C; None for none.
        qkv: projections to queries, keys and values.
        core: attends.
        proj: the projection back.
        size: (H, W).
        residual: add ``x``.

    Returns:
        ``[B, N, C]``.
    """
    encoding = Encoding(core.positional_encoding, core.grid_size, size)
    (back,) = Affine.of(proj)
    return block.attend(
        x, norm, qkv, back, core.dwc, core.scale, encoding, core.num_heads, core.focusing_factor, residual
    )
