"""Depth-wise convolution of token maps by the C kernel of ``depthwise.c``."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.ops.native.arguments import dense
from flatten_dense.ops.native.build import library

DTYPES = (torch.float32, torch.bfloat16)
KERNEL_SIZES = (3, 5)
CHANNEL_MULTIPLE = 16
_SMALL = 1 << 20  # multiply-adds that one thread has done before a second one has woken up


def supports(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel is there and takes this; arguments as in :func:`forward`."""
    return (
        x.device.type == "cpu"
        and x.dtype in DTYPES
        and x.shape[-1] % CHANNEL_MULTIPLE == 0
        and weight.shape[-1] in KERNEL_SIZES
        and library() is not None
    )


def forward(x: Tensor, size: Sequence[int], weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve; needs :func:`supports`.

    Args:
        x: ``[B, H * W, C]``, any strides.
        size: (H, W).
        weight: ``[D, 1, k, k]`` float32; channel c uses kernel c % D.
        bias: ``[D]`` float32.

    Returns:
        ``[B, H * W, C]`` in the type of ``x``, dense.
    """
    out = x.new_empty(x.shape)
    forward_rows(x, size, weight, bias, out, 0, size[0])
    return out


def forward_rows(
    x: Tensor, size: Sequence[int], weight: Tensor, bias: Tensor, out: Tensor, first_row: int, last_row: int
) -> None:
    """Compute rows [first_row, last_row) of the convolved map alone; other arguments as in :func:`forward`.

    Args:
        x: the whole map.
        out: ``[B, (last_row - first_row) * W, C]`` to write into, channels dense.
    """
    _convolve(x, size, weight, bias, out, first_row, last_row, flip=False)


def input_gradient(grad: Tensor, size: Sequence[int], weight: Tensor) -> Tensor:
    """The gradient of ``x`` from that of the result, dense; other arguments as in :func:`forward`."""
    out = grad.new_empty(grad.shape)
    _convolve(grad, size, weight, None, out, 0, size[0], flip=True)
    return out


def weight_gradient(grad: Tensor, x: Tensor, size: Sequence[int], weight: Tensor) -> tuple[Tensor, Tensor]:
    """The float32 gradients of weight and bias from that of the result; other arguments as in :func:`forward`."""
    _check(x, size, weight)
    _check(grad, size, weight)
    (batch, _, channels), dtype = x.shape, x.dtype
    grad, x = dense(grad.to(dtype)), dense(x)
    grad_weight, grad_bias = torch.empty_like(weight, dtype=torch.float32), weight.new_empty(weight.shape[0])
    k = weight.shape[-1]
    failed = _functions()[1](
        *_rows(grad),
        *_rows(x),
        grad_weight.data_ptr(),
        grad_bias.data_ptr(),
        batch,
        *size,
        channels,
        weight.shape[0],
        k,
        dtype == torch.bfloat16,
        _threads(x.numel() * k * k),
    )
    if failed:
        raise MemoryError("no memory for the gradient of a depth-wise convolution")
    return grad_weight, grad_bias


def _convolve(
    x: Tensor,
    size: Sequence[int],
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    first_row: int,
    last_row: int,
    flip: bool,
) -> None:
    _check(x, size, weight)
    rows = last_row - first_row
    (batch, _, channels), k = x.shape, weight.shape[-1]
    assert 0 <= first_row <= last_row <= size[0]
    assert out.shape == (batch, rows * size[1], channels)
    assert out.dtype == x.dtype
    assert out.stride(2) == 1
    x, weight = dense(x), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    assert bias is None or (bias.dtype == torch.float32 and bias.shape == weight.shape[:1])
    failed = _functions()[0](
        *_rows(x),
        weight.data_ptr(),
        None if bias is None else bias.data_ptr(),
        *_rows(out),
        batch,
        *size,
        channels,
        weight.shape[0],
        first_row,
        last_row,
        k,
        flip,
        x.dtype == torch.bfloat16,
        _threads(batch * rows * size[1] * channels * k * k),
    )
    if failed:
        raise MemoryError("no memory for the kernels of a depth-wise convolution")


def _check(x: Tensor, size: Sequence[int], weight: Tensor) -> None:
    """The C kernel trusts what it is given."""
    kernels, k = weight.shape[0], weight.shape[-1]
    if x.dim() != 3 or x.shape[1] != size[0] * size[1]:
        raise ValueError(f"x must be [B, H * W, C] with (H, W) = {tuple(size)}, got {tuple(x.shape)}")
    if weight.shape != (kernels, 1, k, k) or x.shape[2] % kernels:
        raise ValueError(
            f"weight must be [D, 1, k, k] with D a divisor of the {x.shape[2]} channels, got {tuple(weight.shape)}"
        )
    assert x.dtype in DTYPES
    assert weight.dtype == torch.float32
    assert k in KERNEL_SIZES
    assert x.shape[2] % CHANNEL_MULTIPLE == 0


def _rows(x: Tensor) -> tuple[int, int, int]:
    """Address, and strides of the batch and of tokens in bytes."""
    return x.data_ptr(), x.stride(0) * x.element_size(), x.stride(1) * x.element_size()


def _threads(multiply_adds: int) -> int:
    return 1 if multiply_adds < _SMALL else torch.get_num_threads()


@functools.cache
def _functions() -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer]:
    kernels = library()
    assert kernels is not None
    pointer, number, option = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    rows, sizes = (pointer, number, number), (number,) * 5
    convolve, weight_gradient = kernels.depthwise_forward, kernels.depthwise_weight_gradient
    convolve.argtypes = (*rows, pointer, pointer, *rows, *sizes, number, number, *(option,) * 4)
    weight_gradient.argtypes = (*rows, *rows, pointer, pointer, *sizes, *(option,) * 3)
    return convolve, weight_gradient
