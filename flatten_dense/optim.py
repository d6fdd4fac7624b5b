"""What the optimiser decays, and how the learning rate moves."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

SWIN_DENSE_NO_DECAY = ("norm", "relative_position_bias_table", "absolute_pos_embed")
"""Name parts exempt from decay in the Swin family's segmentation and detection recipes; biases stay decayed."""

IMAGENET_NO_DECAY = ("relative_position_bias_table", "absolute_pos_embed")
"""Name parts exempt from decay in the ImageNet recipes, together with ``exempt_1d=True``."""


def parameter_groups(
    model: nn.Module, weight_decay: float | None = None, no_decay: Sequence[str] = (), exempt_1d: bool = False
) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those that do not.

    The published rules: PVT with Semantic FPN exempts nothing (the defaults); Swin with UPerNet exempts
    :data:`SWIN_DENSE_NO_DECAY`; ImageNet exempts :data:`IMAGENET_NO_DECAY` with ``exempt_1d``.

    Args:
        model: whose parameters; frozen ones are left out, shared ones appear once.
        weight_decay: of the first group; None leaves it to the optimiser.
        no_decay: parts of names; a parameter whose full name contains one of them does not decay.
        exempt_1d: whether vectors, scalars and biases do not decay either.

    Returns:
        Groups for an optimiser, the decayed one first; an empty one is left out.

    Raises:
        ValueError: if no parameter is trainable.

    Source: ``custom_keys`` of mmcv's optimiser constructor with ``decay_mult=0`` (substring match).
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        small = exempt_1d and (parameter.ndim <= 1 or name.endswith(".bias"))
        is_exempt = small or any(part in name for part in no_decay)
        (exempt if is_exempt else decayed).append(parameter)
    if not decayed and not exempt:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter: unfreeze some before building an optimiser"
        )
    first: dict[str, Any] = {"params": decayed}
    if weight_decay is not None:
        first["weight_decay"] = weight_decay
    return [group for group in (first, {"params": exempt, "weight_decay": 0.0}) if group["params"]]


class _Schedule(ABC):
    """A learning rate per optimiser step: a curve from 1 downwards, with a linear warm-up multiplied onto it."""

    warmup_steps: int
    warmup_ratio: float

    def __call__(self, optimizer: Optimizer, total_steps: float) -> LambdaLR:
        """Build the scheduler, to be stepped once after every optimiser step.

        Args:
            optimizer: its groups' ``lr`` are the base rates.
            total_steps: optimiser steps of the whole training, infinite where they are not known; from there on the
                rate stays at its end.

        Raises:
            ValueError: if the length of training is not known, or a base rate does not suit the schedule.
        """
        if not 1 <= total_steps < math.inf:
            raise ValueError(f"a schedule needs to know the steps of training, got {total_steps}: set max_steps")
        return LambdaLR(optimizer, [self._factor_of(group, total_steps) for group in optimizer.param_groups])

    @abstractmethod
    def curve(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """What a base rate is multiplied with at each step, the warm-up aside."""

    def _check_warmup(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio is a fraction of the learning rate, 0..1, got {self.warmup_ratio}")

    def _factor_of(self, group: dict[str, Any], total_steps: float) -> Callable[[int], float]:
        # A scheduler built in mid-training finds the base rate in initial_lr, as torch's own schedulers do.
        curve = self.curve(float(group.get("initial_lr", group["lr"])), total_steps)
        lr_scale = float(group.get("lr_scale", 1.0))

        def factor(step: int) -> float:
            value = curve(step)
            if step < self.warmup_steps:
                value *= 1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio)
            return value * lr_scale

        return factor


@dataclass(frozen=True)
class PolySchedule(_Schedule):
    """Polynomial decay per optimiser step, with a linear warm-up multiplied onto it.

    ``lr = (base - min_lr) * (1 - step / total)^power + min_lr``, during the warm-up times
    ``1 - (1 - step / warmup_steps) * (1 - warmup_ratio)``, and times the group's ``lr_scale`` where it has one.

    Args:
        power: 1 is a straight line.
        warmup_steps: length of the warm-up, which is part of the total.
        warmup_ratio: fraction of the schedule's value at step 0 of the warm-up.
        min_lr: where the decay ends.

    Source: mmcv's ``PolyLrUpdaterHook`` with ``by_epoch=False`` and ``warmup="linear"``; ``lr_scale`` as in timm's
    layer-wise decay, which torch's schedulers ignore by themselves.
    """

    power: float = 0.9
    warmup_steps: int = 0
    warmup_ratio: float = 1e-6
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power must be positive, got {self.power}")
        if self.min_lr < 0:
            raise ValueError(f"min_lr must not be negative, got {self.min_lr}")
        self._check_warmup()

    def curve(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """From 1 down to ``min_lr / base_lr``."""
        if base_lr < self.min_lr:
            raise ValueError(f"the learning rate {base_lr} lies below min_lr={self.min_lr}: lower min_lr")
        floor = self.min_lr / base_lr if self.min_lr else 0.0
        return lambda step: (1 - floor) * math.pow(max(0.0, 1 - step / total_steps), self.power) + floor


@dataclass(frozen=True)
class StepSchedule(_Schedule):
    """A learning rate that drops at fixed points of the training, after the warm-up of :class:`PolySchedule`.

    Args:
        drops_at: fractions of the training, ascending: 12 epochs with drops after 8 and 11 are [0.666667, 0.916667].
        factor: what the rate is multiplied with at each.
        warmup_steps: length of the warm-up, which is part of the total.
        warmup_ratio: fraction of the rate at step 0 of the warm-up.

    Source: mmcv's ``StepLrUpdaterHook`` with ``warmup="linear"``, mmdet's 1x and 3x schedules.
    """

    drops_at: tuple[float, ...] = (0.666667, 0.916667)
    factor: float = 0.1
    warmup_steps: int = 500
    warmup_ratio: float = 0.001

    def __post_init__(self) -> None:
        if list(self.drops_at) != sorted(self.drops_at) or not all(0 < drop < 1 for drop in self.drops_at):
            raise ValueError(
                "drops_at must be fractions of the training between 0 and 1, ascending (8 and 11 of 12 epochs are "
                f"[0.666667, 0.916667]), got {list(self.drops_at)}"
            )
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor must be above 0 and at most 1, got {self.factor}")
        self._check_warmup()

    def curve(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """From 1 down in steps."""
        drops = [round(drop * total_steps) for drop in self.drops_at]
        return lambda step: math.pow(self.factor, sum(step >= drop for drop in drops))


Schedule: TypeAlias = PolySchedule | StepSchedule
