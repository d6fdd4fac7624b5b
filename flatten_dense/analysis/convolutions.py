"""The convolutions of the values that cores add to their attention, as explicit banded matrices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import cast

import torch
from torch import Tensor, nn

from flatten_dense.analysis.core_call import scatter_windows
from flatten_dense.backbones.cswin import CrossShapedAttention
from flatten_dense.layers import (
    FocusedLinearAttention,
    LocallyEnhancedAttention,
    Size,
    WindowedAttention,
)
from flatten_dense.layers.linear_angular_attention import LinearAngularAttention
from flatten_dense.layers.windows import WindowLayout
from flatten_dense.ops.naive import naive_convolution_matrix, naive_interpolation_matrix

Convolution = tuple[Tensor, Tensor] | None


@torch.no_grad()
def convolution_matrix(
    core: nn.Module, q_size: Size, kv_size: Size, channels: Sequence[int] | None = None
) -> Convolution:
    """What a core adds to its attention: B and b, one of each per channel.

    A head with weights ``A``, of :func:`flatten_dense.analysis.attention_weights`, gives ``(A + B[c]) v[c] + b[c]`` in
    its channel c.

    Args:
        core: bare or within windows. One whose type has no :func:`convolution_rule` is taken to add nothing.
        q_size: (H, W) of the queries, H * W = N.
        kv_size: (H, W) of keys and values, H * W = M.
        channels: those wanted of C, rising; None for all. In memory are N x M numbers for each.

    Returns:
        ``[c, N, M]`` and ``[c]``, in the type of the core's parameters; None if the core adds nothing.
    """
    return convolution_rule(core, q_size, kv_size, channels)


@singledispatch
def convolution_rule(core: nn.Module, q_size: Size, kv_size: Size, channels: Sequence[int] | None) -> Convolution:
    """The rules behind :func:`convolution_matrix`, by the type of the core; without one it adds nothing.

    For a core of your own that does::

        @convolution_rule.register
        def _(core: MyCore, q_size: Size, kv_size: Size, channels: Sequence[int] | None) -> Convolution:
            return ...  # [c, N, M] and [c]
    """
    return None


@convolution_rule.register
def _(core: LinearAngularAttention, q_size: Size, kv_size: Size, channels: Sequence[int] | None) -> Convolution:
    chosen = range(core.dim) if channels is None else channels
    kernels = [channel // (core.dim // core.num_heads) for channel in chosen]  # one for each head
    return naive_convolution_matrix(core.dwc.weight[kernels, 0], q_size), core.dwc.weight.new_zeros(len(kernels))


@convolution_rule.register
def _(core: FocusedLinearAttention, q_size: Size, kv_size: Size, channels: Sequence[int] | None) -> Convolution:
    if core.dwc is None:
        return None
    chosen = range(core.scale.shape[2]) if channels is None else channels
    kernels = [channel % core.dwc.weight.shape[0] for channel in chosen]  # all heads share them
    matrices = naive_convolution_matrix(core.dwc.weight[kernels, 0], q_size)
    if kv_size != q_size:
        numbers = (height * width for height, width in (q_size, kv_size))
        matrices = matrices @ naive_interpolation_matrix(*numbers).to(matrices)
    return matrices, cast(Tensor, core.dwc.bias)[kernels]


@convolution_rule.register
def _(core: LocallyEnhancedAttention, q_size: Size, kv_size: Size, channels: Sequence[int] | None) -> Convolution:
    chosen = list(range(core.lepe.weight.shape[0]) if channels is None else channels)
    matrices = naive_convolution_matrix(core.lepe.weight[chosen, 0], kv_size)
    bias = cast(Tensor, core.lepe.bias)[chosen]
    inner = convolution_rule(core.core, q_size, kv_size, channels)
    return (matrices, bias) if inner is None else (matrices + inner[0], bias + inner[1])


@convolution_rule.register
def _(core: WindowedAttention, q_size: Size, kv_size: Size, channels: Sequence[int] | None) -> Convolution:
    layout = WindowLayout(q_size, None, core.window_size, core.shifted)
    inner = convolution_rule(core.core, layout.window, layout.window, channels)
    if inner is None:
        return None
    number = layout.counts[0] * layout.counts[1]
    return scatter_windows(core, q_size, inner[0].unsqueeze(1).expand(-1, number, -1, -1)), inner[1]


@convolution_rule.register
def _(core: CrossShapedAttention, q_size: Size, kv_size: Size, channels: Sequence[int] | None) -> Convolution:
    first = cast(LocallyEnhancedAttention, core.cores[0].core)
    half = first.lepe.weight.shape[0]
    chosen = range(2 * half) if channels is None else channels
    parts = []
    for index, inner in enumerate(core.cores):
        own = [channel - index * half for channel in chosen if channel // half == index]
        parts.append(convolution_rule(inner, q_size, kv_size, own))
    matrices, biases = zip(*parts, strict=True)
    return torch.cat(matrices), torch.cat(biases)
