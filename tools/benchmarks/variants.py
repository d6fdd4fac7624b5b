"""What a model is compared with, under names that timm knows: the benchmarks run them in processes of their own."""

from __future__ import annotations

import copy
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn

from benchmarks.reference import ReferenceBackbone


class LinearLayers(nn.Module):
    """The Linear layers of a model alone, each with an input as large as the model gives it, and its own output.

    Under autocast the inputs are in its type already.

    Args:
        model: one of ours.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.reference = ReferenceBackbone(model)
        self.inputs: dict[torch.Size, list[tuple[nn.Module, Tensor]]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Run them all for images ``[B, 3, H, W]``; the last one's output."""
        if images.shape not in self.inputs:
            self.inputs[images.shape] = self._make_inputs(images)
        for layer, x in self.inputs[images.shape]:
            out = layer(x)
        return out

    def _make_inputs(self, images: Tensor) -> list[tuple[nn.Module, Tensor]]:
        """Each layer with its input, one tensor for all of a shape."""
        shapes: dict[str, torch.Size] = {}
        on_meta = copy.deepcopy(self.reference).to("meta")
        for name, module in on_meta.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, args, name=name: shapes.update({name: args[0].shape}))
        with torch.no_grad():
            on_meta(images.detach().to("meta"))
        kind = images.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
        tensors = {shape: torch.randn(shape, dtype=dtype, device=images.device) for shape in set(shapes.values())}
        return [(self.reference.get_submodule(name), tensors[shape]) for name, shape in shapes.items()]


@register_model
def reference_order(pretrained: bool = False, *, of: str, **options: Any) -> nn.Module:  # noqa: ANN401 - of the model
    """A model of ours in the released order of operations.

    Args:
        pretrained: has no meaning here.
        of: the model's name.
        options: its arguments.
    """
    return ReferenceBackbone(timm.create_model(of, **options))


@register_model
def linear_layers(pretrained: bool = False, *, of: str, **options: Any) -> nn.Module:  # noqa: ANN401 - of the model
    """The Linear layers of a model of ours alone; arguments as :func:`reference_order`."""
    return LinearLayers(timm.create_model(of, **options))
