"""How near a form of focused linear attention comes to the time that its memory traffic alone must take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.table import Table
from benchmarks.timing import device_seconds, machine
from flatten_dense.ops import attention_form
from flatten_dense.ops.focused_linear_attention import focused_linear_attention

HEAD_SIZE = 32
ENCODING_SIZE = (56, 56)
COPIED = 2**28  # elements of float32, more than any cache holds
FORWARD_TENSORS = 4  # q, k, v read, the output written
TRAINING_TENSORS = FORWARD_TENSORS + 7  # q, k, v and the output's gradient read, the gradients of q, k and v written


def floor(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time of a form in bfloat16 over the least that its memory traffic takes: each tensor read or written once."""
    copied = copy_bandwidth(options.device)
    listed = listed_bandwidth(options.device)
    tokens = options.side**2
    print(
        f"{machine(options.threads, options.device)}; {tokens} tokens, batch {options.batch_size}, bfloat16, heads of "
        f"{HEAD_SIZE}; medians of {options.repetitions} passes with cold caches. This GPU copies at {copied / 1e9:.0f} "
        f"GB/s; its memory is listed at {'an unknown number of' if listed is None else f'{listed / 1e9:.0f}'} GB/s. "
        f"Floor: {FORWARD_TENSORS} tensors of a forward, {TRAINING_TENSORS} with a backward pass, at such a speed."
    )
    table = Table(
        {"pass": "", "C": "d", "us": ".1f", "MB": ".1f", "GFLOP": ".2f", "GB/s": ".0f"}
        | {"of the copied floor": ".0%", "of the listed floor": ".0%"}
    )
    for what, tensors, products in (("forward", FORWARD_TENSORS, 2), ("training", TRAINING_TENSORS, 6)):
        for dim in options.dims:
            call = make_call(options.form, what == "training", options.batch_size, options.side, dim, options.device)
            seconds = device_seconds(call, options.repetitions, options.warm_up, options.device)
            values = options.batch_size * tokens * dim
            size = 2 * tensors * values
            shares = [speed and size / speed / seconds for speed in (copied, listed)]
            flops = 2 * products * values * HEAD_SIZE
            table.add(what, dim, 1e6 * seconds, size / 1e6, flops / 1e9, size / seconds / 1e9, *shares)
    return table.rows


def make_call(form: str, is_training: bool, batch_size: int, side: int, dim: int, device: str) -> Callable[[], None]:
    """A pass of the operator.

    Args:
        form: to use.
        is_training: forward and backward; else forward alone.
        batch_size: B.
        side: of the square map that queries and keys lie on.
        dim: C.
        device: where to compute.
    """
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype, generator=generator)

    q, k, v, grad = (random(batch_size, side**2, dim) for _ in range(4))
    scale = random(1, 1, dim, dtype=torch.float32)
    encoding = random(1, ENCODING_SIZE[0] * ENCODING_SIZE[1], dim, dtype=torch.float32)
    leaves = [x.requires_grad_(is_training) for x in (q, k, v, scale, encoding)]

    def call() -> None:
        with attention_form(form), torch.inference_mode(not is_training):
            out = focused_linear_attention(*leaves, ENCODING_SIZE, (side, side), dim // HEAD_SIZE)
            if is_training:
                torch.autograd.grad(out, leaves, grad)

    return call


def copy_bandwidth(device: str, elements: int = COPIED) -> float:
    """Bytes per second that the device reads and writes when it copies.

    Args:
        device: whose memory.
        elements: of the float32 tensor that is copied.
    """
    source = torch.zeros(elements, device=device)
    target = torch.empty_like(source)
    seconds = device_seconds(lambda: target.copy_(source), repetitions=10, warm_up=3, device=device)
    return 2 * source.nbytes / seconds


def listed_bandwidth(device: str) -> float | None:
    """Bytes per second by the memory's clock and width, as data sheets have it; None where they are not known."""
    if torch.device(device).type != "cuda":
        return None
    from triton.testing import get_dram_gbps

    return 1e9 * get_dram_gbps(torch.device(device).index or 0)
