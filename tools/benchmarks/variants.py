"""What a model is compared with, under names that timm knows: the benchmarks run them in processes of their own."""

from __future__ import annotations

import copy
from typing import Any, cast

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn

from benchmarks.products import Product
from benchmarks.reference import ReferenceBackbone


class LinearLayers(nn.Module):
    """The products of a model's Linear layers alone, with inputs as large as the model gives them.

    Args:
        model: one of ours.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.reference = ReferenceBackbone(model)
        self.products: dict[torch.Size, list[Product]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Run them all for images ``[B, 3, H, W]``; the last one's output."""
        if images.shape not in self.products:
            self.products[images.shape] = self._make(images)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            for product in self.products[images.shape]:
                product.run()
        return product.out

    def _make(self, images: Tensor) -> list[Product]:
        """Those of each layer; layers with inputs or outputs of one shape share them."""
        shapes: dict[str, torch.Size] = {}
        on_meta = copy.deepcopy(self.reference).to("meta")
        for name, module in on_meta.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, args, name=name: shapes.update({name: args[0].shape}))
        with torch.no_grad():
            on_meta(images.detach().to("meta"))
        kind = images.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
        tensors: dict[tuple[int, int], Tensor] = {}

        def tensor(rows: int, columns: int) -> Tensor:
            if (rows, columns) not in tensors:
                tensors[rows, columns] = torch.randn(rows, columns, dtype=dtype, device=images.device)
            return tensors[rows, columns]

        products = []
        for name, shape in shapes.items():
            layer = cast(nn.Linear, self.reference.get_submodule(name))
            rows = shape[:-1].numel()
            x, out = tensor(rows, layer.in_features), tensor(rows, layer.out_features)
            # A square layer would read what it writes.
            products.append(Product.of(layer, x, None if out is x else out))
        return products


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
