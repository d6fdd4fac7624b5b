"""Focused linear attention as a composite of PyTorch's own functions, which autograd, export and vmap see through.

In the order that costs O(N C D) instead of O(N M C). Whole maps of queries and keys exist several times inside; the
other forms of :mod:`flatten_dense.ops.focused_linear_attention` are for speed, this one is for everything else.

Source: "FLatten Transformer: Vision Transformer using Focused Linear Attention", arXiv 2308.00442, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.ops.half_precision import narrow, widen
from flatten_dense.ops.table_resizing import resize_table

EPS = 1e-6  # the published constant, after the ReLU and in the normaliser


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision to float32; leave float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, which would turn the products inside back into half precision."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """View ``[B, N, C]`` as ``[B, G, N, D]``."""
    return x.reshape(*x.shape[:2], num_heads, x.shape[2] // num_heads).transpose(1, 2)


def focused_feature_map(x: Tensor, scale: Tensor, focusing_factor: float = 3) -> Tensor:
    """Sharpen the direction of each row and keep its length.

    y^p / ||y^p|| * ||y|| with y = (ReLU(x) + 1e-6) / softplus(scale). Norms run over all C channels, so this comes
    before the head split.

    Args:
        x: queries or keys ``[B, N, C]``, any float type.
        scale: ``[1, 1, C]``, before the softplus.
        focusing_factor: the power p.

    Returns:
        ``[B, N, C]``, positive, float32 or wider.

    Source: arXiv 2308.00442, eq. 5-6; norms over all channels and the 1e-6 as in the released code.
    """
    y = (F.relu(at_least_float32(x)) + EPS) / F.softplus(at_least_float32(scale))
    # The map is homogeneous of degree 1: with its largest entry at 1 a row cannot overflow under the power, nor can all
    # of it vanish. The factor cancels, so it carries no gradient.
    largest = y.detach().amax(dim=-1, keepdim=True)
    y = y / largest
    powered = y.pow(focusing_factor)
    length: Tensor = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    powered_length: Tensor = torch.linalg.vector_norm(powered, dim=-1, keepdim=True)
    return powered * (largest * length / powered_length)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int, key_padding_mask: Tensor | None = None) -> Tensor:
    """Attention without softmax, keys and values first: q (mean_j k_j^T v_j) / (q . mean_j k_j + 1e-6) per head.

    Args:
        q: mapped queries ``[B, N, C]``, non-negative.
        k: mapped keys ``[B, M, C]``, non-negative.
        v: values ``[B, M, C]``.
        num_heads: G, a divisor of C.
        key_padding_mask: ``[B, M]`` bool, True = ignore that key. A row that ignores every key gives zeros.

    Returns:
        ``[B, N, C]``, float32 or wider.

    Source: arXiv 2308.00442, eq. 3, with the mean-based normalisation of the released code.
    """
    q, k, v = at_least_float32(q), at_least_float32(k), at_least_float32(v)
    num_keys: Tensor | int = k.shape[1]
    if key_padding_mask is not None:
        ignore = key_padding_mask.unsqueeze(-1)
        k, v = k.masked_fill(ignore, 0), v.masked_fill(ignore, 0)
        num_keys = (~key_padding_mask).sum(dim=1).clamp(min=1).view(-1, 1, 1, 1)
    q, k, v = (split_heads(x, num_heads) for x in (q, k, v))
    with full_precision(q.device):
        context = k.transpose(-2, -1) @ v / num_keys
        mean_key = k.sum(dim=-2).unsqueeze(-1) / num_keys
        out = q @ context / (q @ mean_key + EPS)
    return out.transpose(1, 2).flatten(2)


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    key_padding_mask: Tensor | None,
    encoding_size: Sequence[int],
    kv_size: Sequence[int],
    num_heads: int,
    focusing_factor: float,
) -> Tensor:
    """Focused linear attention; arguments as of the operator.

    Returns:
        ``[B, N, C]`` in the type of ``q``.
    """
    with full_precision(q.device):
        dtype = q.dtype
        q, k, v = widen(q), widen(k), widen(v)
        k = k + resize_table(widen(encoding), encoding_size, kv_size)
        if key_padding_mask is not None:
            k = k.masked_fill(key_padding_mask.unsqueeze(-1), 0)  # a NaN there would reach the gradient
        phi_q = focused_feature_map(q, widen(scale), focusing_factor)
        phi_k = focused_feature_map(k, widen(scale), focusing_factor)
        return narrow(linear_attention(phi_q, phi_k, v, num_heads, key_padding_mask), dtype)
