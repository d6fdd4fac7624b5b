"""How the learning rate moves."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class _Schedule(ABC):
    """A learning rate per optimiser step."""

    def __call__(self, optimizer: Optimizer, total_steps: float) -> LambdaLR:
        """Build the scheduler, to be stepped once after every optimiser step.

        Args:
            optimizer: its groups' ``lr`` are the base rates; what the schedule makes of them is multiplied by the
                group's ``lr_scale`` where it has one, as timm does for layer-wise decay and torch's schedulers do not.
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
        """What a base rate is multiplied with at each step."""

    def _factor_of(self, group: dict[str, Any], total_steps: float) -> Callable[[int], float]:
        # A scheduler built in mid-training finds the base rate in initial_lr, as torch's own schedulers do.
        curve = self.curve(float(group.get("initial_lr", group["lr"])), total_steps)
        lr_scale = float(group.get("lr_scale", 1.0))
        return lambda step: curve(step) * lr_scale


class _WarmedUp(_Schedule):
    """A curve from 1 downwards, with a linear warm-up multiplied onto it."""

    warmup_steps: int
    warmup_ratio: float

    def curve(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """What a base rate is multiplied with at each step, the warm-up included."""
        decay = self.decay(base_lr, total_steps)

        def factor(step: int) -> float:
            value = decay(step)
            if step < self.warmup_steps:
                value *= 1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio)
            return value

        return factor

    @abstractmethod
    def decay(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """What a base rate is multiplied with at each step, the warm-up aside."""

    def _check_warmup(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio is a fraction of the learning rate, 0..1, got {self.warmup_ratio}")


@dataclass(frozen=True)
class PolySchedule(_WarmedUp):
    """Polynomial decay per optimiser step, with a linear warm-up multiplied onto it.

    ``lr = (base - min_lr) * (1 - step / total)^power + min_lr``, during the warm-up times
    ``1 - (1 - step / warmup_steps) * (1 - warmup_ratio)``.

    Args:
        power: 1 is a straight line.
        warmup_steps: length of the warm-up, which is part of the total.
        warmup_ratio: fraction of the schedule's value at step 0 of the warm-up.
        min_lr: where the decay ends.

    Source: mmcv's ``PolyLrUpdaterHook`` with ``by_epoch=False`` and ``warmup="linear"``.
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

    def decay(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """From 1 down to ``min_lr / base_lr``."""
        if base_lr < self.min_lr:
            raise ValueError(f"the learning rate {base_lr} lies below min_lr={self.min_lr}: lower min_lr")
        floor = self.min_lr / base_lr if self.min_lr else 0.0
        return lambda step: (1 - floor) * math.pow(max(0.0, 1 - step / total_steps), self.power) + floor


@dataclass(frozen=True)
class StepSchedule(_WarmedUp):
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

    def decay(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """From 1 down in steps."""
        drops = [round(drop * total_steps) for drop in self.drops_at]
        return lambda step: math.pow(self.factor, sum(step >= drop for drop in drops))


@dataclass(frozen=True)
class CosineSchedule(_Schedule):
    """Half a cosine from the learning rate to ``min_lr``, the ImageNet recipes' schedule, per optimiser step.

    The warm-up is a straight line from ``warmup_lr`` and covers the cosine's beginning; after the cosine the rate stays
    at ``min_lr``.

    Args:
        warmup: share of the training; 5 of 310 epochs are 0.016129.
        cooldown: share of the training at its end that the cosine leaves to ``min_lr``; 10 of 310 epochs are 0.032258.
        warmup_lr: where the warm-up starts.
        min_lr: where the cosine ends.

    Source: ``CosineLRScheduler`` of timm 0.4.12 with ``t_in_epochs=False`` and one cycle.
    """

    warmup: float = 0.0
    cooldown: float = 0.0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("warmup", "cooldown"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is a share of the training (5 of 300 epochs are 0.016667), from 0 to below 1, got "
                    f"{getattr(self, name)}"
                )
        for name in ("warmup_lr", "min_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def curve(self, base_lr: float, total_steps: float) -> Callable[[int], float]:
        """From ``warmup_lr / base_lr`` to 1 and down to ``min_lr / base_lr``."""
        if base_lr < max(self.min_lr, self.warmup_lr):
            raise ValueError(
                f"the learning rate {base_lr} lies below min_lr={self.min_lr} or warmup_lr={self.warmup_lr}: lower them"
            )
        steps = max(1, round(total_steps * (1 - self.cooldown)))
        warmup_steps = round(total_steps * self.warmup)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (self.warmup_lr + step * (base_lr - self.warmup_lr) / warmup_steps) / base_lr
            if step >= steps:
                return self.min_lr / base_lr
            return (self.min_lr + 0.5 * (base_lr - self.min_lr) * (1 + math.cos(math.pi * step / steps))) / base_lr

        return factor


Schedule: TypeAlias = PolySchedule | StepSchedule | CosineSchedule
