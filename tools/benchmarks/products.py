"""The product of a Linear layer alone, which bounds what a model around it can reach."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Product(NamedTuple):
    """Nothing else is paid for: the output lies in memory that is there, and all is in the input's type already.

    Attributes:
        x: ``[N, in]``.
        weight: ``[in, out]``.
        bias: ``[out]``, or None.
        out: ``[N, out]``.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    out: Tensor

    @classmethod
    def of(cls, layer: nn.Linear, x: Tensor, out: Tensor | None = None) -> Product:
        """That of a layer, for an input ``[N, in]``, in new memory if none is given."""
        bias = None if layer.bias is None else layer.bias.detach().to(x.dtype)
        out = x.new_empty(x.shape[0], layer.out_features) if out is None else out
        return cls(x, layer.weight.detach().to(x.dtype).t(), bias, out)

    def run(self) -> None:
        """Compute it, outside of autograd and autocast."""
        if self.bias is None:
            torch.mm(self.x, self.weight, out=self.out)
        else:
            torch.addmm(self.bias, self.x, self.weight, out=self.out)
