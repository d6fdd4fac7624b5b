"""float16 at the border of operators that compute in float32: it saturates where it would overflow."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

FLOAT16_MAX = torch.finfo(torch.float16).max


def widen(x: Tensor) -> Tensor:
    """At least float32. The gradient of a float16 tensor saturates on its way back: sums over tokens pass 65504."""
    if x.dtype == torch.float16:
        return cast(Tensor, _WidenFloat16.apply(x))
    return x.to(torch.promote_types(x.dtype, torch.float32))


def narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring a float32 result back to the type of its inputs; float16 saturates."""
    if dtype == torch.float16:
        x = x.clamp(-FLOAT16_MAX, FLOAT16_MAX)
    return x.to(dtype)


def saturate(x: Tensor) -> Tensor:
    """Bring the infinities of a float16 sum back into range; other types stay as they are."""
    return narrow(x, x.dtype)


class _WidenFloat16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return x.float()

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        return grad.clamp(-FLOAT16_MAX, FLOAT16_MAX).half()
