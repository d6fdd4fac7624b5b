"""The explicit N x M matrices of attention: a rule for each type of core, and for each that lies around another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.analysis.core_call import CoreCall, call_within, scatter_windows
from flatten_dense.backbones.cswin import CrossShapedAttention
from flatten_dense.layers import (
    FocusedLinearAttention,
    LocallyEnhancedAttention,
    Size,
    SoftmaxAttention,
    WindowedAttention,
    resize_token_table,
)
from flatten_dense.layers.efficient_attention import EfficientAttention
from flatten_dense.layers.elu_attention import EluLinearAttention
from flatten_dense.layers.hydra_attention import HydraAttention
from flatten_dense.layers.linear_angular_attention import LinearAngularAttention
from flatten_dense.layers.relu_attention import ReluLinearAttention
from flatten_dense.ops.naive import (
    EPS,
    attention_matrix,
    efficient_matrix,
    hydra_matrix,
    linear_angular_matrix,
    softmax_matrix,
)
from flatten_dense.ops.plain import focused_feature_map, split_heads


@torch.no_grad()
def attention_weights(
    core: nn.Module, q: Tensor, k: Tensor, v: Tensor, q_size: Size, kv_size: Size, heads: Sequence[int] | None = None
) -> Tensor:
    """What each value counts in each result of a core, before any convolution of the values is added.

    In memory are N x M numbers for each head asked for, in the type of ``q``.

    Args:
        core: of a type that :func:`weights_rule` knows, bare or within windows.
        q: queries ``[B, N, C]``.
        k: keys ``[B, M, C]``.
        v: values ``[B, M, C]``; only linear angular attention has weights that depend on them.
        q_size: (H, W) of the queries, H * W = N.
        kv_size: (H, W) of keys and values, H * W = M.
        heads: of the core, rising; None for all. Hydra attention has one for each channel.

    Returns:
        ``[B, G, N, M]`` with G heads asked for.

    Raises:
        ValueError: there is no rule for this type of core.
    """
    return weights_rule(core, CoreCall(q, k, v, q_size, kv_size), range(num_heads(core)) if heads is None else heads)


@singledispatch
def weights_rule(core: nn.Module, call: CoreCall, heads: Sequence[int]) -> Tensor:
    """The rules behind :func:`attention_weights`, by the type of the core.

    For a core of your own::

        @weights_rule.register
        def _(core: MyCore, call: CoreCall, heads: Sequence[int]) -> Tensor:
            return ...  # [B, len(heads), N, M]
    """
    name = type(core).__name__
    raise ValueError(
        f"no matrix is known for {name}: put @weights_rule.register (flatten_dense.analysis) above a function whose "
        f"first argument is `core: {name}`"
    )


def num_heads(core: nn.Module) -> int:
    """Heads of a core, bare or within windows."""
    return sum(_own_heads(bare) for bare in _bare_cores(core))


def model_heads(core: nn.Module) -> int:
    """Heads of the model; a core may have another number, as Hydra attention has one for each channel."""
    return sum(getattr(bare, "model_heads", None) or _own_heads(bare) for bare in _bare_cores(core))


def _own_heads(bare: nn.Module) -> int:
    number = getattr(bare, "num_heads", None)
    if not isinstance(number, int):
        raise ValueError(f"{type(bare).__name__} has no attribute num_heads to say how many matrices it has")
    return number


def _bare_cores(core: nn.Module) -> list[nn.Module]:
    if isinstance(core, CrossShapedAttention):
        return [bare for half in core.cores for bare in _bare_cores(half)]
    if isinstance(core, WindowedAttention | LocallyEnhancedAttention):
        return _bare_cores(core.core)
    return [core]


@weights_rule.register
def _(core: SoftmaxAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    bias = call.attn_bias
    if bias is not None:
        bias = bias.expand(-1, core.num_heads, -1, -1)[:, list(heads)]
    q, k = (_of_heads(x, core.num_heads, heads) for x in (call.q, call.k))
    return softmax_matrix(q, k, len(heads), call.key_padding_mask, bias)


@weights_rule.register
def _(core: FocusedLinearAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    k = call.k + resize_token_table(core.positional_encoding, core.grid_size, call.kv_size)
    # The map comes before the choice: it looks at all channels.
    q, k = (focused_feature_map(x, core.scale, core.focusing_factor) for x in (call.q, k))
    q, k = (_of_heads(x, core.num_heads, heads) for x in (q, k))
    return attention_matrix(q, k, len(heads), call.key_padding_mask)


@weights_rule.register
def _(core: ReluLinearAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    q, k = (_of_heads(F.relu(x) + EPS, core.num_heads, heads) for x in (call.q, call.k))
    return attention_matrix(q, k, len(heads), call.key_padding_mask)


@weights_rule.register
def _(core: EluLinearAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    q, k = (_of_heads(F.elu(x) + 1, core.num_heads, heads) for x in (call.q, call.k))
    return attention_matrix(q, k, len(heads), call.key_padding_mask)


@weights_rule.register
def _(core: HydraAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    return hydra_matrix(call.q, call.k, call.key_padding_mask, heads)


@weights_rule.register
def _(core: EfficientAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    q, k = (_of_heads(x, core.num_heads, heads) for x in (call.q, call.k))
    return efficient_matrix(q, k, len(heads), call.key_padding_mask)


@weights_rule.register
def _(core: LinearAngularAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    q, k, v = (_of_heads(x, core.num_heads, heads) for x in call[:3])
    return linear_angular_matrix(q, k, v, len(heads), call.key_padding_mask)


@weights_rule.register
def _(core: LocallyEnhancedAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    return weights_rule(core.core, call, heads)


@weights_rule.register
def _(core: WindowedAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    weights = weights_rule(core.core, call_within(core, call), heads)
    of_images = weights.view(call.q.shape[0], -1, *weights.shape[1:])
    return scatter_windows(core, call.q_size, of_images.transpose(1, 2))


@weights_rule.register
def _(core: CrossShapedAttention, call: CoreCall, heads: Sequence[int]) -> Tensor:
    half = num_heads(core.cores[0])
    parts = zip(*(x.chunk(2, -1) for x in call[:3]), strict=True)
    weights = []
    for index, (inner, (q, k, v)) in enumerate(zip(core.cores, parts, strict=True)):
        own = [head - index * half for head in heads if head // half == index]
        if own:
            weights.append(weights_rule(inner, call._replace(q=q, k=k, v=v), own))
    return torch.cat(weights, 1)


def _of_heads(x: Tensor, num_heads: int, heads: Sequence[int]) -> Tensor:
    """The channels of some heads: ``[B, N, C]`` to ``[B, N, len(heads) * D]``."""
    return split_heads(x, num_heads)[:, list(heads)].transpose(1, 2).flatten(2)
