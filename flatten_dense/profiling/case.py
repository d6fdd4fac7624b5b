"""What is measured: a model at a size, and how it is run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flatten_dense.layers import Size

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Case:
    """A model with everything that its time and memory depend on, but for the machine.

    Attributes:
        name: of timm's registry.
        size: (H, W) of the images.
        options: further arguments of the model, ``{"attention": "SSSS"}``.
        batch_size: images of a pass.
        train: a forward and a backward pass in training mode; else a forward pass in inference mode.
        dtype: float32, or bfloat16 by autocast, the weights staying float32.
        device: cpu, cuda or cuda:1.
        threads: of PyTorch on the CPU; None for its own choice.
        imports: modules that register the model, imported before it is made.
    """

    name: str
    size: Size
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    train: bool = False
    dtype: Precision = "float32"
    device: str = "cpu"
    threads: int | None = None
    imports: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line that :meth:`from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        height, width = values.pop("size")
        return cls(size=(height, width), imports=tuple(values.pop("imports")), **values)
