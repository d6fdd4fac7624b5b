"""Attention with its explicit N x M matrix: the truth for the fast forms, the matter of analysis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.ops.plain import split_heads

EPS = 1e-6


def naive_feature_map(x: Tensor, scale: Tensor, focusing_factor: float = 3) -> Tensor:
    """The focused feature map word for word, in the dtype of ``x``; arguments as in the fast form.

    Source: arXiv 2308.00442, eq. 5-6.
    """
    y = (F.relu(x) + EPS) / F.softplus(scale)
    powered = y.pow(focusing_factor)
    length: Tensor = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    powered_length: Tensor = torch.linalg.vector_norm(powered, dim=-1, keepdim=True)
    return powered / powered_length * length


def attention_matrix(q: Tensor, k: Tensor, num_heads: int, key_padding_mask: Tensor | None = None) -> Tensor:
    """The weights that linear attention gives each value: q_i . k_j / sum_j' (q_i . k_j' + 1e-6) per head.

    Rows sum to slightly less than 1, because of the 1e-6. Memory grows with N * M.

    Args:
        q: mapped queries ``[B, N, C]``, non-negative.
        k: mapped keys ``[B, M, C]``, non-negative.
        num_heads: G, a divisor of C.
        key_padding_mask: ``[B, M]`` bool, True = ignore that key.

    Returns:
        ``[B, G, N, M]``.
    """
    q, k = split_heads(q, num_heads), split_heads(k, num_heads)
    products = q @ k.transpose(-2, -1)
    num_keys: Tensor | int = k.shape[2]
    if key_padding_mask is not None:
        products = products.masked_fill(key_padding_mask[:, None, None], 0)
        num_keys = (~key_padding_mask).sum(dim=1, dtype=products.dtype).view(-1, 1, 1, 1)
    return products / (products.sum(dim=-1, keepdim=True) + EPS * num_keys).clamp(min=EPS)


def softmax_matrix(
    q: Tensor,
    k: Tensor,
    num_heads: int,
    key_padding_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
) -> Tensor:
    """The weights of softmax attention; arguments and result as :func:`attention_matrix`, of either sign.

    ``attn_bias``, broadcastable to ``[B, G, N, M]``, is added to the products.
    """
    q, k = split_heads(q, num_heads), split_heads(k, num_heads)
    products = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if attn_bias is not None:
        products = products + attn_bias
    if key_padding_mask is not None:
        products = products.masked_fill(key_padding_mask[:, None, None], float("-inf"))
    return _softmax(products, -1)


def hydra_matrix(
    q: Tensor, k: Tensor, key_padding_mask: Tensor | None = None, channels: Sequence[int] | None = None
) -> Tensor:
    """The weights of Hydra attention, a matrix for each channel, or each of those wanted: ``[B, C, N, M]``.

    Arguments as of :func:`attention_matrix`, of either sign.

    Source: arXiv 2209.07484.
    """
    q, k = (x / _length(x) for x in (q, k))
    if channels is not None:
        q, k = q[..., list(channels)], k[..., list(channels)]
    matrix = q.transpose(1, 2).unsqueeze(-1) * k.transpose(1, 2).unsqueeze(-2)
    return matrix if key_padding_mask is None else matrix.masked_fill(key_padding_mask[:, None, None], 0)


def efficient_matrix(q: Tensor, k: Tensor, num_heads: int, key_padding_mask: Tensor | None = None) -> Tensor:
    """The weights of efficient attention; arguments and result as :func:`attention_matrix`, of either sign.

    Source: arXiv 1812.01243, softmax normalisation.
    """
    q, k = split_heads(q, num_heads), split_heads(k, num_heads)
    if key_padding_mask is not None:
        k = k.masked_fill(key_padding_mask[:, None, :, None], float("-inf"))
    return _softmax(q, -1) @ _softmax(k, -2).transpose(-2, -1)


def linear_angular_matrix(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, key_padding_mask: Tensor | None = None
) -> Tensor:
    """The weights of linear angular attention, N = M; the values say what its rows are divided by.

    Arguments and result as :func:`attention_matrix`, of either sign, and ``v`` ``[B, M, C]``.

    Source: arXiv 2211.10526, rows of length 1 as in the released code.
    """
    q, k, v = (split_heads(x, num_heads) for x in (q, k, v))
    q, k = (x / _length(x) for x in (q, k))
    matrix = torch.eye(q.shape[2], dtype=q.dtype, device=q.device) / 2 + q @ k.transpose(-2, -1) / math.pi
    if key_padding_mask is not None:
        matrix = matrix.masked_fill(key_padding_mask[:, None, None], 0)
    return matrix / _length(matrix @ v)


def naive_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, key_padding_mask: Tensor | None = None
) -> Tensor:
    """The same result as :func:`flatten_dense.ops.linear_attention`, through the explicit matrix."""
    matrix = attention_matrix(q, k, num_heads, key_padding_mask)
    if key_padding_mask is not None:
        v = v.masked_fill(key_padding_mask.unsqueeze(-1), 0)
    return (matrix @ split_heads(v, num_heads)).transpose(1, 2).flatten(2)


def _softmax(x: Tensor, dim: int) -> Tensor:
    exponentials = (x - x.amax(dim=dim, keepdim=True)).exp()  # the largest is 1: none overflows
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def _length(x: Tensor) -> Tensor:
    """Of the last axis, ``[..., 1]``; a row of zeros stays one when it is divided by it."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.clamp(min=1e-12)


def naive_convolution_matrix(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A depth-wise convolution of a map with zeros around it, as one banded matrix per channel.

    Args:
        weight: kernels ``[C, h, w]`` of odd sides.
        size: (H, W) of the map, H * W = N tokens in row-major order.

    Returns:
        ``[C, N, N]``: what output token i takes of input token j.
    """
    tokens = torch.arange(size[0] * size[1], device=weight.device)
    row, column = tokens // size[1], tokens % size[1]
    height, width = weight.shape[1:]
    down = row - row[:, None] + height // 2
    across = column - column[:, None] + width // 2
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    return weight[:, down.clamp(0, height - 1), across.clamp(0, width - 1)].where(inside, 0)


def naive_interpolation_matrix(num_out: int, num_in: int) -> Tensor:
    """Linear interpolation of a sequence (align_corners=False) as a matrix ``[num_out, num_in]`` in float64."""
    positions = ((torch.arange(num_out, dtype=torch.float64) + 0.5) * num_in / num_out - 0.5).clamp(0, num_in - 1)
    distances = positions[:, None] - torch.arange(num_in, dtype=torch.float64)
    return (1 - distances.abs()).clamp(min=0)
