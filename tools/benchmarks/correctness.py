"""A form of focused linear attention against the naive one in float64."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from benchmarks.table import Table
from flatten_dense.layers import resize_token_table
from flatten_dense.ops import attention_form
from flatten_dense.ops.focused_linear_attention import focused_linear_attention
from flatten_dense.ops.naive import naive_feature_map, naive_linear_attention

# Largest error allowed, over the largest value: of the sums in float32, and of rounding the result to half precision.
LIMITS = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
HEADS = ((48, 3), (96, 3), (128, 2), (256, 2))  # channels and heads: 16, 32, 64 and 128 channels in each
NAMES = ("output", "q", "k", "v", "scale", "encoding")
VERDICT, WRONG = "verdict", "WRONG"
KEY_SIZE, ENCODING_SIZE = (23, 29), (14, 14)  # odd, and stretched
NUM_QUERIES = 701


def correctness(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Errors of a form's outputs and gradients, over their largest values; the naive form in float64 is the truth."""
    print(f"Errors over the largest value, {NUM_QUERIES} queries, keys on {KEY_SIZE[0]} x {KEY_SIZE[1]}.")
    table = Table(
        {"dtype": "", "head size": "d", "mask": "", **dict.fromkeys(NAMES, ".1e"), "allowed": ".0e", VERDICT: ""}
    )
    for dtype, limit in LIMITS.items():
        for dim, heads in HEADS:
            for is_masked in (False, True):
                found = errors(options.form, dtype, dim, heads, is_masked, options.device)
                verdict = "good" if max(found) <= limit else WRONG
                mask = "yes" if is_masked else "no"
                table.add(str(dtype).removeprefix("torch."), dim // heads, mask, *found, limit, verdict)
    wrong = sum(row[VERDICT] == WRONG for row in table.rows)
    print(f"\n{wrong} of {len(table.rows)} cases are wrong." if wrong else f"\nAll {len(table.rows)} cases are good.")
    return table.rows


def errors(form: str, dtype: torch.dtype, dim: int, heads: int, is_masked: bool, device: str) -> list[float]:
    """Largest error of the output and of each gradient, in the order of NAMES, over the true one's largest value.

    Args:
        form: to test.
        dtype: of queries, keys and values; the parameters are float32.
        dim: C.
        heads: G.
        is_masked: whether some keys are ignored, in one image all of them.
        device: where to compute.
    """
    generator = torch.Generator().manual_seed(0)
    num_keys = KEY_SIZE[0] * KEY_SIZE[1]
    shapes = (3, NUM_QUERIES, dim), (3, num_keys, dim), (3, num_keys, dim), (1, 1, dim), (1, 14 * 14, dim)
    tensors = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    tensors[:3] = [x.to(dtype) for x in tensors[:3]]
    mask = None
    if is_masked:
        mask = (torch.rand(3, num_keys, generator=generator) < 0.3).to(device)
        mask[2] = True
    grad = torch.randn(3, NUM_QUERIES, dim, generator=generator).to(device, dtype)

    def fast(q: Tensor, k: Tensor, v: Tensor, scale: Tensor, encoding: Tensor) -> Tensor:
        with attention_form(form):
            return focused_linear_attention(
                q, k, v, scale, encoding, ENCODING_SIZE, KEY_SIZE, heads, key_padding_mask=mask
            )

    def naive(q: Tensor, k: Tensor, v: Tensor, scale: Tensor, encoding: Tensor) -> Tensor:
        k = k + resize_token_table(encoding, ENCODING_SIZE, KEY_SIZE)
        return naive_linear_attention(naive_feature_map(q, scale), naive_feature_map(k, scale), v, heads, mask)

    got = _output_and_gradients(fast, tensors, grad)
    true = _output_and_gradients(naive, [x.double() for x in tensors], grad.double())
    return [_error(own, of_naive) for own, of_naive in zip(got, true, strict=True)]


def _output_and_gradients(function: Any, tensors: list[Tensor], grad: Tensor) -> list[Tensor]:  # noqa: ANN401
    leaves = [x.detach().requires_grad_() for x in tensors]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


def _error(got: Tensor, true: Tensor) -> float:
    apart = (got.double() - true).abs().max()
    return float("inf") if apart.isnan() else (apart / true.abs().max()).item()
