"""Focused linear attention by the C kernels: float32 and bfloat16 on the CPU, forward and backward.

Source: arXiv 2308.00442, section 4. Inside all is float32.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.ops.native.build import library

LANES = 16  # head sizes are multiples of it
_MAX_POWER = 8
_TYPES = {torch.float32: 0, torch.bfloat16: 1}


class _Rows(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("token", ctypes.c_int64),
        ("type", ctypes.c_int32),
    )


class _Encoding(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("table_height", ctypes.c_int64),
        ("table_width", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("first_token", ctypes.c_int64),
    )


class _Shape(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_int64),
        ("tokens", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("power", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("inv_scale", ctypes.c_void_p),
    )


def supports(q: Tensor, num_heads: int, focusing_factor: float) -> bool:
    """Whether the kernels take such tensors on this machine."""
    return (
        q.device.type == "cpu"
        and q.dtype in _TYPES
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
        return Sums(torch.zeros(batch, num_heads, head_dim, head_dim), torch.zeros(batch, num_heads, head_dim))

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


class Encoding(NamedTuple):
    """Positions added to keys.

    Attributes:
        table: ``[1 or B, h * w, C]``.
        table_size: (h, w).
        size: (H, W) of the keys' map that the table is stretched over.
        first_token: of that map, that the keys at hand begin with.
    """

    table: Tensor
    table_size: tuple[int, int]
    size: tuple[int, int]
    first_token: int = 0


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
    k, v, table, mask = _dense(k), _dense(v), encoding.table.float().contiguous(), _mask(key_padding_mask)
    shape = _shape(k, sums.keys.shape[1], focusing_factor, inv_scale)
    _call("attention_keys", shape, _rows(k), _rows(v), _encoding(encoding, table), _pointer(mask), *map(_pointer, sums))


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
    q = _dense(q)
    shape = _shape(q, means.keys.shape[1], focusing_factor, inv_scale)
    _call("attention_queries", shape, _rows(q), *map(_pointer, means), _rows(out), ctypes.c_int32(add))


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    key_padding_mask: Tensor | None,
    encoding_size: tuple[int, int],
    kv_size: tuple[int, int],
    num_heads: int,
    focusing_factor: float,
) -> tuple[Tensor, Tensor]:
    """The operator's forward pass; arguments and results as ``torch.ops.flatten_dense.focused_attention``."""
    inv_scale = inverse_scale(scale)
    sums = Sums.zeros(k.shape[0], num_heads, k.shape[2] // num_heads)
    add_keys(sums, k, v, inv_scale, Encoding(encoding, encoding_size, kv_size), focusing_factor, key_padding_mask)
    means = sums.over(_count(k, key_padding_mask))
    out = torch.empty(q.shape, dtype=q.dtype)
    answer_queries(q, means, inv_scale, focusing_factor, out)
    return out, means.joined()


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    key_padding_mask: Tensor | None,
    context: Tensor,
    encoding_size: tuple[int, int],
    kv_size: tuple[int, int],
    num_heads: int,
    focusing_factor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator's backward pass: gradients of q, k, v, scale and encoding."""
    grad, q, k, v, mask = _dense(grad.to(q.dtype)), _dense(q), _dense(k), _dense(v), _mask(key_padding_mask)
    inv_scale, table = inverse_scale(scale), encoding.float().contiguous()
    means = Sums.split(context)
    grads = Sums.zeros(q.shape[0], num_heads, q.shape[2] // num_heads)
    scale_sums = torch.zeros(scale.numel())
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    shape = _shape(q, num_heads, focusing_factor, inv_scale)
    transposed = means.products.transpose(-2, -1).contiguous()
    _call(
        "attention_queries_backward",
        shape,
        _rows(q),
        _rows(grad),
        _pointer(means.products),
        _pointer(transposed),
        _pointer(means.keys),
        _rows(dq),
        *map(_pointer, grads),
        _pointer(scale_sums),
    )
    grads = grads.over(_count(k, key_padding_mask))
    shape = _shape(k, num_heads, focusing_factor, inv_scale)
    transposed = grads.products.transpose(-2, -1).contiguous()
    _call(
        "attention_keys_backward",
        shape,
        _rows(k),
        _rows(v),
        _encoding(Encoding(encoding, encoding_size, kv_size), table),
        _pointer(mask),
        _pointer(grads.products),
        _pointer(transposed),
        _pointer(grads.keys),
        _rows(dk),
        _rows(dv),
        _pointer(scale_sums),
    )
    wide = scale.float()
    # d(1 / s) = -ds / s^2, and the softplus rises by the sigmoid.
    dscale = (-scale_sums * inv_scale).view_as(wide) * torch.sigmoid(wide)
    return dq, dk, dv, dscale.to(scale.dtype), _encoding_gradient(dk, encoding, encoding_size, kv_size)


def inverse_scale(scale: Tensor) -> Tensor:
    """1 / softplus(scale) as ``[C]`` float32."""
    return F.softplus(scale.detach().float()).reciprocal().flatten().contiguous()


def _encoding_gradient(
    dk: Tensor, encoding: Tensor, encoding_size: tuple[int, int], kv_size: tuple[int, int]
) -> Tensor:
    wide = dk.float()
    if encoding.shape[0] == 1:
        wide = wide.sum(dim=0, keepdim=True) if wide.shape[0] > 1 else wide
    if encoding_size != kv_size:
        maps = wide.transpose(1, 2).reshape(1, -1, *kv_size)
        size = [1, maps.shape[1], *encoding_size]
        grad: Tensor = torch.ops.aten.upsample_bilinear2d_backward(maps, list(kv_size), size, False)
        wide = grad.flatten(2).transpose(1, 2)
    return wide.to(encoding.dtype)


def _count(k: Tensor, key_padding_mask: Tensor | None) -> Tensor | int:
    if key_padding_mask is None:
        return k.shape[1]
    return (~key_padding_mask).sum(dim=1).clamp(min=1).view(-1, 1, 1)


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _mask(key_padding_mask: Tensor | None) -> Tensor | None:
    return None if key_padding_mask is None else key_padding_mask.contiguous()


def _shape(x: Tensor, num_heads: int, focusing_factor: float, inv_scale: Tensor) -> ctypes.Structure:
    batch, tokens, channels = x.shape
    threads = torch.get_num_threads()
    return _Shape(batch, tokens, num_heads, channels // num_heads, int(focusing_factor), threads, inv_scale.data_ptr())


def _rows(x: Tensor) -> ctypes.Structure:
    return _Rows(x.data_ptr(), x.stride(0), x.stride(1), _TYPES[x.dtype])


def _encoding(encoding: Encoding, table: Tensor) -> ctypes.Structure:
    batch = table.stride(0) if table.shape[0] > 1 else 0
    return _Encoding(table.data_ptr(), batch, *encoding.table_size, *encoding.size, encoding.first_token)


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _call(name: str, *arguments: ctypes.Structure | ctypes.c_void_p | ctypes.c_int32) -> None:
    passed = [ctypes.byref(each) if isinstance(each, ctypes.Structure) else each for each in arguments]
    if getattr(library(), name)(*passed):
        raise MemoryError("no memory for the attention kernel's sums")
