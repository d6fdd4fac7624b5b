"""The focused feature map of a chunk of tokens, in the parts that its products and its gradient are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.ops.half_precision import narrow
from flatten_dense.ops.plain import EPS


class Rows(NamedTuple):
    """The feature map r y^p of tokens ``[b, n, C]``: r = |y| / |y^p| is one number per token.

    Attributes:
        prepared: y = (ReLU(x) + 1e-6) / softplus(scale).
        y: the same, or divided by the largest of its row where a power could overflow or vanish.
        largest: those, ``[b, n, 1]``; None where nothing was divided.
        powered: the power of ``y``.
        length: of ``y``, ``[b, n, 1]``.
        powered_length: of ``powered``, ``[b, n, 1]``.
        ratio: r for ``powered``, ``[b, n, 1]``: with it, the division has no effect.
    """

    prepared: Tensor
    y: Tensor
    largest: Tensor | None
    powered: Tensor
    length: Tensor
    powered_length: Tensor
    ratio: Tensor


class Focus:
    """The map, and the sum of what chunks give to the gradient of its scale.

    Args:
        scale: ``[1, 1, C]``, before the softplus.
        focusing_factor: the power p.
        dtype: to compute in.
    """

    def __init__(self, scale: Tensor, focusing_factor: float, dtype: torch.dtype) -> None:
        self.scale = scale
        self.focusing_factor = focusing_factor
        self.dtype = dtype
        self.inverse = F.softplus(scale.to(dtype)).reciprocal()
        self.floor = EPS * self.inverse
        self.sums = torch.zeros_like(self.inverse)
        # Rows of such lengths need no care: all that is made of their powers, squares and quotients fits float32.
        self.ordinary = 10 ** (-9 / focusing_factor) * scale.shape[-1] ** 0.5, 10 ** (9 / focusing_factor)

    def widen(self, x: Tensor) -> Tensor:
        """Bring inputs to the type computed in."""
        return x.to(self.dtype)

    def offset(self, encoding: Tensor) -> Tensor:
        """What is added to keys with an encoding, after the division by softplus(scale)."""
        return torch.addcmul(self.floor, self.widen(encoding), self.inverse)

    def prepare(self, x: Tensor, offset: Tensor | None = None) -> Tensor:
        """(ReLU(x) + 1e-6) / softplus(scale), or that of x with an encoding, given as its offset."""
        y = torch.addcmul(self.floor if offset is None else offset, self.widen(x), self.inverse)
        return torch.maximum(y, self.floor, out=y)

    def rows(self, prepared: Tensor) -> Rows:
        """The map of what :meth:`prepare` gave."""
        y, largest, length = prepared, None, _length(prepared)
        if not self._are_ordinary(length):
            largest = y.amax(-1, keepdim=True)
            y = y / largest
            length = _length(y)
        powered = _power(y, self.focusing_factor)
        powered_length = _length(powered)
        ratio = length / powered_length
        if largest is not None:
            ratio *= largest
        return Rows(prepared, y, largest, powered, length, powered_length, ratio)

    def backward(self, dpowered: Tensor, dratio: Tensor, rows: Rows, ignored: Tensor | None = None) -> Tensor:
        """The gradient of x; that of the scale is added up.

        Args:
            dpowered: gradient of ``rows.powered``; overwritten.
            dratio: gradient of ``rows.ratio``.
            rows: of the forward pass.
            ignored: ``[b, n, 1]`` bool, rows without influence, whatever their gradients are.
        """
        dratio = dratio * rows.ratio
        dpowered.addcmul_(rows.powered, dratio / -rows.powered_length.square())
        dy = _power(rows.y, self.focusing_factor - 1).mul_(dpowered)
        dy.addcmul_(rows.y, dratio / (self.focusing_factor * rows.length.square()))
        if ignored is not None:
            dy.masked_fill_(ignored, 0)
        self.sums += (dy * rows.y).sum((0, 1))
        dy *= self.focusing_factor * self.inverse
        if rows.largest is not None:
            dy /= rows.largest
        return dy.mul_(rows.prepared > self.floor)

    def scale_gradient(self) -> Tensor:
        """What :meth:`backward` has added up."""
        slope = torch.sigmoid(self.scale.to(self.dtype))  # of the softplus
        return narrow(-self.focusing_factor * self.sums * self.inverse * slope, self.scale.dtype)

    def _are_ordinary(self, lengths: Tensor) -> bool:
        if not lengths.is_cpu:
            return False  # to look would be to wait for the device
        shortest, longest = lengths.aminmax()
        return bool(shortest > self.ordinary[0]) and bool(longest < self.ordinary[1])


def _length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length


def _power(x: Tensor, exponent: float) -> Tensor:
    """By multiplication where that is possible: ``pow`` takes many times as long."""
    if exponent == 1:
        return x.clone()
    if exponent == 2:
        return x * x
    if exponent == 3:
        return (x * x).mul_(x)
    return x.pow(exponent)
