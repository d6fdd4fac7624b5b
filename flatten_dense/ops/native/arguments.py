"""What the C kernels are called with: the structures of ``focus.h`` and ``block.h``, from tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.ops.native.build import library

LANES = 16  # channels, of a head too, are multiples of it
TYPES = {torch.float32: 0, torch.bfloat16: 1}


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


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float))


class _Linear(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("width", ctypes.c_int64),
    )


class _Around(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("kernels", ctypes.c_int64),
        ("side", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("residual", ctypes.c_int32),
    )


class Affine(NamedTuple):
    """A linear layer, a part of one, or a convolution.

    Attributes:
        weight: ``[out, in]`` or ``[D, 1, k, k]``, dense.
        bias: ``[out]`` or ``[D]``.
    """

    weight: Tensor
    bias: Tensor

    @staticmethod
    def of(layer: nn.Linear, parts: int = 1) -> list[Affine]:
        """A layer cut into parts of equal size."""
        return [Affine(*pair) for pair in zip(layer.weight.chunk(parts), layer.bias.chunk(parts), strict=True)]


class Encoding(NamedTuple):
    """Positions added to keys.

    Attributes:
        table: ``[1 or B, h * w, C]``, float32 and dense.
        table_size: (h, w).
        size: (H, W) of the keys' map that the table is stretched over.
        first_token: of that map, that the keys at hand begin with.
    """

    table: Tensor
    table_size: Sequence[int]
    size: Sequence[int]
    first_token: int = 0


def rows(x: Tensor) -> ctypes.Structure:
    """Rows of ``[B, N, C]``, dense in the last dimension."""
    return _Rows(x.data_ptr(), x.stride(0), x.stride(1), TYPES[x.dtype])


def shape(x: Tensor, num_heads: int, focusing_factor: float, inv_scale: Tensor) -> ctypes.Structure:
    """What attention over ``[B, N, C]`` has to know."""
    batch, tokens, channels = x.shape
    power, threads = int(focusing_factor), torch.get_num_threads()
    return _Shape(batch, tokens, num_heads, channels // num_heads, power, threads, inv_scale.data_ptr())


def table(encoding: Encoding) -> ctypes.Structure:
    """An encoding."""
    batch = encoding.table.stride(0) if encoding.table.shape[0] > 1 else 0
    return _Encoding(encoding.table.data_ptr(), batch, *encoding.table_size, *encoding.size, encoding.first_token)


def norm(layer: nn.LayerNorm | None) -> ctypes.Structure:
    """A LayerNorm over channels, or none."""
    return _Norm(None, None, 0) if layer is None else _Norm(layer.weight.data_ptr(), layer.bias.data_ptr(), layer.eps)


def linear(layer: Affine) -> ctypes.Structure:
    """A linear layer."""
    width, depth = layer.weight.shape
    return _Linear(layer.weight.data_ptr(), layer.bias.data_ptr(), depth, width)


def around(convolution: Affine, size: Sequence[int], residual: bool) -> ctypes.Structure:
    """The convolution of the values ``[D, 1, k, k]`` over a map of ``size``, and whether the input is added."""
    weight, bias = convolution
    return _Around(weight.data_ptr(), bias.data_ptr(), weight.shape[0], weight.shape[3], *size, residual)


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """Where the numbers of a tensor lie."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def dense(x: Tensor) -> Tensor:
    """With a dense last dimension."""
    return x if x.stride(-1) == 1 else x.contiguous()


def inverse_scale(scale: Tensor) -> Tensor:
    """1 / softplus(scale) as ``[C]`` float32."""
    return F.softplus(scale.detach().float()).reciprocal().flatten().contiguous()


def call(name: str, *arguments: object) -> None:
    """Run a kernel.

    Raises:
        MemoryError: it got none for its sums.
    """
    if getattr(library(), name)(*map(_passed, arguments)):
        raise MemoryError(f"no memory left for the sums of the kernel {name}")


def _passed(argument: object) -> object:
    if isinstance(argument, ctypes.Structure):
        return ctypes.byref(argument)
    return ctypes.c_int64(argument) if isinstance(argument, int) else argument
