"""Projections and linear attention together, piece by piece, where no gradient is wanted.

Of the whole map only the values exist, and the result: queries, keys and what attention gives them are made, used and
forgotten while they lie in the processor's cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.focused_linear_attention import FocusedLinearAttention
from flatten_dense.layers.token_grid import Size, TokenGrid
from flatten_dense.ops.native import attention, depthwise

PIECE = 2**18  # elements of a piece, 1 MiB of float32: a few such lie in the cache of every core


class Affine(NamedTuple):
    """A linear layer, or a part of one.

    Attributes:
        weight: ``[out, in]``.
        bias: ``[out]``.
    """

    weight: Tensor
    bias: Tensor

    @staticmethod
    def of(layer: nn.Linear, parts: int = 1) -> list[Affine]:
        """A layer cut into parts of equal size."""
        return [Affine(*pair) for pair in zip(layer.weight.chunk(parts), layer.bias.chunk(parts), strict=True)]

    def to(self, dtype: torch.dtype) -> Affine:
        """In another type."""
        return Affine(self.weight.to(dtype), self.bias.to(dtype))

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """Map ``[n, in]`` into ``out``, ``[n, out]``."""
        return torch.addmm(self.bias, x, self.weight.t(), out=out)


def can_stream(core: nn.Module, x: Tensor, grid: TokenGrid) -> bool:
    """Whether :func:`stream_attention` takes this core, and tokens ``[B, N, C]``."""
    return (
        isinstance(core, FocusedLinearAttention)
        and grid.padding is None
        and _dtype(x) in (torch.float32, torch.bfloat16)
        and attention.supports(x, core.num_heads, core.focusing_factor)
        and depthwise.supports(x, core.dwc.weight)
    )


def stream_attention(
    x: Tensor,
    norm: nn.Module,
    qkv: tuple[Affine, Affine, Affine],
    core: FocusedLinearAttention,
    proj: Affine,
    size: Size,
) -> Tensor:
    """``x + proj(core(q(y), k(y), v(y)))`` with ``y = norm(x)``.

    Args:
        x: tokens ``[B, N, C]`` of a map of ``size``; left as it is.
        norm: works on each token by itself.
        qkv: projections to queries, keys and values.
        core: attends.
        proj: the projection back.
        size: (H, W).

    Returns:
        ``[B, N, C]`` in the type of ``x``.
    """
    dtype = _dtype(x)
    (to_q, to_k, to_v), back = (each.to(dtype) for each in qkv), proj.to(dtype)
    out = torch.empty(x.shape, dtype=x.dtype)
    values = torch.empty((1, *x.shape[1:]), dtype=dtype)
    with torch.autocast("cpu", enabled=False):
        for image, result in zip(x, out, strict=True):
            _attend(image, norm, (to_q, to_k, to_v), core, back, size, values, result)
    return out


def _attend(
    x: Tensor,
    norm: nn.Module,
    qkv: tuple[Affine, Affine, Affine],
    core: FocusedLinearAttention,
    proj: Affine,
    size: Size,
    values: Tensor,
    out: Tensor,
) -> None:
    (to_q, to_k, to_v), (height, width), (tokens, channels) = qkv, size, x.shape
    rows = max(1, PIECE // (width * channels))
    pieces = [(start, min(start + rows, height)) for start in range(0, height, rows)]
    scratch, other = values.new_empty(2, 1, min(rows, height) * width, channels)
    inv_scale = attention.inverse_scale(core.scale)
    sums = attention.Sums.zeros(1, core.num_heads, channels // core.num_heads)
    for first, last in pieces:
        part = slice(first * width, last * width)
        y = norm(x[part]).to(values.dtype)
        k = scratch[:, : y.shape[0]]
        to_k(y, k[0])
        to_v(y, values[0, part])
        encoding = attention.Encoding(core.positional_encoding, core.grid_size, size, first * width)
        attention.add_keys(sums, k, values[:, part], inv_scale, encoding, core.focusing_factor)
    means = sums.over(tokens)
    weight, bias = core.dwc.weight.float(), core.dwc.bias.float()
    for first, last in pieces:
        part = slice(first * width, last * width)
        y = norm(x[part]).to(values.dtype)
        q, answer = scratch[:, : y.shape[0]], other[:, : y.shape[0]]
        to_q(y, q[0])
        depthwise.forward_rows(values, size, weight, bias, answer, first, last)
        attention.answer_queries(q, means, inv_scale, core.focusing_factor, answer, add=True)
        torch.add(x[part], proj(answer[0], q[0]), out=out[part])


def _dtype(x: Tensor) -> torch.dtype:
    """The type that linear layers work in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
