"""Which parameters decay, and which learn faster than others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

SWIN_DENSE_NO_DECAY = ("norm", "relative_position_bias_table", "absolute_pos_embed")
"""Name parts exempt from decay in the Swin family's segmentation and detection recipes; biases stay decayed."""

IMAGENET_NO_DECAY = ("relative_position_bias_table", "absolute_pos_embed")
"""Name parts exempt from decay in the ImageNet recipes, together with ``exempt_1d=True``."""


@dataclass(frozen=True)
class ParameterGroups:
    """Splits the trainable parameters by weight decay and by learning rate.

    The published rules of decay: PVT with Semantic FPN exempts nothing (the defaults); Swin with UPerNet exempts
    :data:`SWIN_DENSE_NO_DECAY`; ImageNet exempts :data:`IMAGENET_NO_DECAY` with ``exempt_1d``.

    Args:
        no_decay: parts of names; a parameter whose full name contains one of them does not decay.
        exempt_1d: whether vectors, scalars and biases do not decay either.
        layer_decay: what the learning rate is multiplied with for each layer below the head; 1 for none.
        head_lr: what it is multiplied with for all that is not the backbone: neck and heads.
        reference_batch: images per optimiser step that the learning rate is meant for. It is multiplied by actual /
            reference, and so are the rates that a schedule starts from and ends at. None takes it as it is.

    Source: ``custom_keys`` of mmcv's optimiser constructor with ``decay_mult=0`` (substring match); layer-wise decay of
    ``timm.optim.param_groups_layer_decay``.
    """

    no_decay: tuple[str, ...] = ()
    exempt_1d: bool = False
    layer_decay: float = 1.0
    head_lr: float = 1.0
    reference_batch: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"groups.layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if self.head_lr <= 0:
            raise ValueError(
                f"groups.head_lr is a factor above 0, got {self.head_lr}: to train nothing but the head, set "
                "freeze.stages -1"
            )
        if self.reference_batch is not None and self.reference_batch < 1:
            raise ValueError(f"groups.reference_batch is a number of images from 1, got {self.reference_batch}")

    def batch_scale(self, images_per_step: int) -> float:
        """What the learning rate is multiplied with for so many images per optimiser step."""
        return images_per_step / self.reference_batch if self.reference_batch else 1.0

    def __call__(
        self,
        model: nn.Module,
        below_head: Mapping[str, int],
        scale: float = 1.0,
        dimensions: Mapping[str, int] | None = None,
    ) -> list[dict[str, Any]]:
        """Build the groups of an optimiser.

        Args:
            model: whose parameters; frozen ones are left out, shared ones appear once.
            below_head: layers between a parameter of the backbone and the head, by name; all others are the head's.
            scale: of all learning rates.
            dimensions: of the parameters, by name, before FSDP made each a part of a vector; None for those they have.

        Returns:
            Groups with ``lr_scale``, from the highest rate to the lowest, of each rate the decayed one first. Those
            that decay leave how much to the optimiser.

        Raises:
            ValueError: if no parameter is trainable.
        """
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for wrapped_name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            name = wrapped_name.replace("_fsdp_wrapped_module.", "")
            of_layer = self.layer_decay ** below_head[name] if name in below_head else self.head_lr
            exempt = self._is_exempt(name, dimensions[name] if dimensions else parameter.ndim)
            groups.setdefault((-of_layer * scale, exempt), []).append(parameter)
        if not groups:
            raise ValueError(
                f"{type(model).__name__} has no trainable parameter: unfreeze some before building an optimiser"
            )
        return [
            {"params": parameters, "lr_scale": -negative, **({"weight_decay": 0.0} if exempt else {})}
            for (negative, exempt), parameters in sorted(groups.items(), key=lambda group: group[0])
        ]

    def _is_exempt(self, name: str, dimensions: int) -> bool:
        small = self.exempt_1d and (dimensions <= 1 or name.endswith(".bias"))
        return small or any(part in name for part in self.no_decay)
