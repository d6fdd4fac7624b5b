"""Focused linear attention by the C kernels: float32 and bfloat16 on the CPU, forward and backward.

Source: arXiv 2308.00442, section 4. Inside all is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.native.arguments import (
    LANES,
    TYPES,
    Encoding,
    call,
    dense,
    inverse_scale,
    pointer,
    rows,
    shape,
    table,
)
from flatten_dense.ops.native.build import library

_MAX_POWER = 8


def supports(q: Tensor, num_heads: int, focusing_factor: float) -> bool:
    """Whether the kernels take queries ``[B, N, C]`` like these on this machine."""
    return (
        q.device.type == "cpu"
        and q.dtype in TYPES
        and q.shape[2] // num_heads % LANES == 0
        and q.numel() > 0
        and focusing_factor in range(1, _MAX_POWER + 1)
        and library() is not None
    )


class Sums(NamedTuple):
    """What all keys and values come to, sums while they are being added and means when they are asked.

    Attributes:
        products: ``[B, G, D, D]``, of phi(k) v^T.
        keys: ``[B, G, D]``, of phi(k).
    """

    products: Tensor
    keys: Tensor

    @staticmethod
    def zeros(batch: int, num_heads: int, head_dim: int) -> Sums:
        """Of no keys."""
        products = torch.zeros(batch, num_heads, head_dim, head_dim, dtype=torch.float32, device="cpu")
        return Sums(products, products.new_zeros(batch, num_heads, head_dim))

    def over(self, count: Tensor | int) -> Sums:
        """Divide both, by a number or one for each image ``[B, 1, 1]``."""
        per_product = count.unsqueeze(-1) if isinstance(count, Tensor) else count
        return Sums(self.products / per_product, self.keys / count)

    def joined(self) -> Tensor:
        """``[B, G, D, D + 1]``, the keys last."""
        return torch.cat([self.products, self.keys.unsqueeze(-1)], dim=-1)

    @staticmethod
    def split(joined: Tensor) -> Sums:
        """The inverse of :meth:`joined`."""
        return Sums(joined[..., :-1].contiguous(), joined[..., -1].contiguous())


def add_keys(
    sums: Sums,
    k: Tensor,
    v: Tensor,
    inv_scale: Tensor,
    encoding: Encoding,
    focusing_factor: float,
    key_padding_mask: Tensor | None = None,
) -> None:
    """Add keys and values ``[B, M, C]``, perhaps a part of all, to ``sums`` in place.

    Args:
        sums: changed.
        k: dense in its last dimension.
        v: of the same type and shape.
        inv_scale: ``[C]`` float32, 1 / softplus(scale).
        encoding: added to ``k``.
        focusing_factor: a whole number from 1 to 8.
        key_padding_mask: ``[B, M]`` bool, True = ignore.
    """
    k, v, mask = dense(k), dense(v), _mask(key_padding_mask)
    own = shape(k, sums.keys.shape[1], focusing_factor, inv_scale)
    call("attention_keys", own, rows(k), rows(v), table(encoding), pointer(mask), *map(pointer, sums))


def answer_queries(
    q: Tensor, means: Sums, inv_scale: Tensor, focusing_factor: float, out: Tensor, add: bool = False
) -> None:
    """Write what queries ``[B, N, C]``, perhaps a part of all, get: phi(q) products / (phi(q) . keys + 1e-6).

    Args:
        q: dense in its last dimension.
        means: over all keys.
        inv_scale: ``[C]`` float32, 1 / softplus(scale).
        focusing_factor: a whole number from 1 to 8.
        out: like ``q``; written.
        add: add to what ``out`` holds.
    """
    q = dense(q)
    own = shape(q, means.keys.shape[1], focusing_factor, inv_scale)
    call("attention_queries", own, rows(q), *map(pointer, means), rows(out), int(add))


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The operator's forward pass; arguments and results as ``torch.ops.flatten_dense.focused_attention``."""
    q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, num_heads, focusing_factor = inputs
    inv_scale = inverse_scale(scale)
    sums = Sums.zeros(k.shape[0], num_heads, k.shape[2] // num_heads)
    positions = Encoding(encoding.float().contiguous(), encoding_size, kv_size)
    add_keys(sums, k, v, inv_scale, positions, focusing_factor, key_padding_mask)
    means = sums.over(_count(k, key_padding_mask))
    out = q.new_empty(q.shape)
    answer_queries(q, means, inv_scale, focusing_factor, out)
    return out, means.joined()


def backward(grad: Tensor, inputs: Inputs, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator's backward pass: gradients of q, k, v, scale and encoding.

    That of the encoding is summed in float32 from that of k, which bfloat16 has rounded.
    """
    q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, num_heads, focusing_factor = inputs
    grad, q, k, v, mask = dense(grad.to(q.dtype)), dense(q), dense(k), dense(v), _mask(key_padding_mask)
    inv_scale = inverse_scale(scale)
    positions = Encoding(encoding.float().contiguous(), encoding_size, kv_size)
    means = Sums.split(context)
    grads = Sums.zeros(q.shape[0], num_heads, q.shape[2] // num_heads)
    scale_sums = scale.new_zeros(scale.numel(), dtype=torch.float32)
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    own = shape(q, num_heads, focusing_factor, inv_scale)
    transposed = means.products.transpose(-2, -1).contiguous()
    call(
        "attention_queries_backward",
        own,
        rows(q),
        rows(grad),
        pointer(means.products),
        pointer(transposed),
        pointer(means.keys),
        rows(dq),
        *map(pointer, grads),
        pointer(scale_sums),
    )
    grads = grads.over(_count(k, key_padding_mask))
    own = shape(k, num_heads, focusing_factor, inv_scale)
    transposed = grads.products.transpose(-2, -1).contiguous()
    call(
        "attention_keys_backward",
        own,
        rows(k),
        rows(v),
        table(positions),
        pointer(mask),
        pointer(grads.products),
        pointer(transposed),
        pointer(grads.keys),
        rows(dk),
        rows(dv),
        pointer(scale_sums),
    )
    wide = scale.float()
    # d(1 / s) = -ds / s^2, and the softplus rises by the sigmoid.
    dscale = (-scale_sums * inv_scale).view_as(wide) * torch.sigmoid(wide)
    return dq, dk, dv, dscale.to(scale.dtype), _encoding_gradient(dk, encoding, encoding_size, kv_size)


def _encoding_gradient(dk: Tensor, encoding: Tensor, encoding_size: Sequence[int], kv_size: Sequence[int]) -> Tensor:
    wide = dk.float()
    if encoding.shape[0] == 1:
        wide = wide.sum(dim=0, keepdim=True) if wide.shape[0] > 1 else wide
    if tuple(encoding_size) != tuple(kv_size):
        maps = wide.reshape(1, *kv_size, wide.shape[2]).permute(0, 3, 1, 2)
        size = [1, maps.shape[1], *encoding_size]
        grad: Tensor = torch.ops.aten.upsample_bilinear2d_backward(maps, list(kv_size), size, False)
        wide = grad.flatten(2).transpose(1, 2)
    return wide.to(encoding.dtype)


def _count(k: Tensor, key_padding_mask: Tensor | None) -> Tensor | int:
    if key_padding_mask is None:
        return k.shape[1]
    return (~key_padding_mask).sum(dim=1).clamp(min=1).view(-1, 1, 1)


def _mask(key_padding_mask: Tensor | None) -> Tensor | None:
    return None if key_padding_mask is None else key_padding_mask.contiguous()
