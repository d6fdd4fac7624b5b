# mypy: disable-error-code="import-untyped, import-not-found"
"""Focused linear attention on CUDA: the operator's forward and backward over Triton kernels.

Source: arXiv 2308.00442, section 4; what is read and written how often, and why, is in docs/kernels.md.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from flatten_dense.ops.inputs import Inputs

WIDE_HEAD = 64  # wider ones need the shared memory of an A100 or H100 for their D x D numbers
SHARED_MEMORY_FOR_WIDE_HEADS = 160 * 1024


def supports(q: Tensor, num_heads: int, focusing_factor: float) -> bool:
    """Whether the kernels can compute this: float32 or half, heads of 16 to 128 channels, Triton, a recent GPU."""
    head_dim = q.shape[-1] // num_heads
    return (
        q.is_cuda
        and q.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and 16 <= head_dim <= 128
        and q.numel() > 0
        and _can_compile(q.device)
        and (head_dim <= WIDE_HEAD or _shared_memory(q.device) >= SHARED_MEMORY_FOR_WIDE_HEADS)
    )


@cache
def _can_compile(device: torch.device) -> bool:
    # Compute capability 8.0 brought bf16 and TF32 products.
    if torch.version.cuda is None or find_spec("triton") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        _run_a_kernel(device)
    except Exception as error:  # whatever Triton, its C compiler or the driver may raise
        warnings.warn(
            f"Triton cannot build kernels on {torch.cuda.get_device_name(device)}: {type(error).__name__}: {error}. "
            "Attention takes the slower PyTorch form there; Triton needs a C compiler (gcc or clang) on the PATH and a "
            "writable cache folder ($TRITON_CACHE_DIR, else ~/.triton).",
            stacklevel=2,
        )
        return False
    return True


def _run_a_kernel(device: torch.device) -> None:
    from flatten_dense.ops.triton_kernels.launching import Tiles
    from flatten_dense.ops.triton_kernels.summing import sum_chunks

    sum_chunks(torch.zeros(1, 1, 1, 16, 17, device=device), Tiles(16, 1, torch.float32), 1)


@cache
def _shared_memory(device: torch.device) -> int:
    from triton.runtime import driver

    index = torch.cuda.current_device() if device.index is None else device.index
    return int(driver.active.utils.get_device_properties(index)["max_shared_mem"])


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The output ``[B, N, C]`` in the type of ``q`` and the context ``[B, G, D, D + 1]`` in float32."""
    from flatten_dense.ops.triton_kernels.launch_forward import attend

    return attend(inputs)


def backward(grad: Tensor, inputs: Inputs, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v, scale and encoding, each in the type of its tensor."""
    from flatten_dense.ops.triton_kernels.launch_backward import gradients

    return gradients(grad, inputs, context)
