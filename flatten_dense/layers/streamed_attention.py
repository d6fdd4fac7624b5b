"""Linear attention together with the projections around it, where no gradient is wanted.

Of the whole map only the values exist, and the result: queries, keys and what attention gives them are made, used and
forgotten while they lie in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.focused_linear_attention import FocusedLinearAttention
from flatten_dense.layers.lepe import LocallyEnhancedAttention
from flatten_dense.layers.streaming import computes_as, product_type, rows_per_piece
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.forms import forced_form
from flatten_dense.ops.native import attention_pieces, block
from flatten_dense.ops.native.arguments import Affine, Encoding


def can_stream_attention(x: Tensor, core: nn.Module, *layers: nn.Module) -> bool:
    """Whether :func:`stream_attention` takes tokens ``[B, N, C]``, this core and these layers."""
    inner, around = (core.core, [core.lepe]) if isinstance(core, LocallyEnhancedAttention) else (core, [])
    return (
        isinstance(inner, FocusedLinearAttention)
        and computes_as(inner, FocusedLinearAttention)
        and inner.dwc is not None
        and (inner is core or computes_as(core, LocallyEnhancedAttention))
        and forced_form() in (None, "native")
        and block.takes_layers(x, inner.dwc, *around, *layers)
        and block.takes_attention(x, inner.dwc.weight, inner.num_heads, inner.focusing_factor)
        and inner.scale.dtype == inner.positional_encoding.dtype == torch.float32
        and inner.positional_encoding.is_contiguous()
        and (product_type(x) == torch.bfloat16 or product_type(x) == x.dtype)
    )


def stream_attention(
    x: Tensor,
    norm: nn.LayerNorm | None,
    qkv: Sequence[Affine],
    core: FocusedLinearAttention | LocallyEnhancedAttention,
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
    inner = core if isinstance(core, FocusedLinearAttention) else cast(FocusedLinearAttention, core.core)
    encoding = Encoding(inner.positional_encoding, inner.grid_size, size)
    (back,) = Affine.of(proj)
    layers = norm, qkv, back, _convolution(core), inner.scale, encoding, inner.num_heads, inner.focusing_factor
    if product_type(x) == torch.float32:
        return block.attend(x, *layers, residual)
    return attention_pieces.attend(x, *layers, residual, rows_per_piece(4 * x.shape[2], x.device))


def _convolution(core: FocusedLinearAttention | LocallyEnhancedAttention) -> Affine:
    """That of the values by the core; with one around the core, both as one."""
    if isinstance(core, FocusedLinearAttention):
        dwc = cast(nn.Conv2d, core.dwc)
        return Affine(dwc.weight, cast(Tensor, dwc.bias))
    inner, outer = _convolution(cast(FocusedLinearAttention, core.core)), core.lepe
    heads, wider = outer.weight.shape[0] // inner.weight.shape[0], (inner.weight.shape[3] - outer.weight.shape[3]) // 2
    weight = inner.weight.repeat(heads, 1, 1, 1) + F.pad(outer.weight, [wider] * 4)
    return Affine(weight, inner.bias.repeat(heads) + cast(Tensor, outer.bias))
