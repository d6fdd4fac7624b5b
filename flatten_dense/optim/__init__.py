"""What learns, what decays, and how the learning rate moves."""

from flatten_dense.optim.freezing import Freezing
from flatten_dense.optim.groups import IMAGENET_NO_DECAY, SWIN_DENSE_NO_DECAY, ParameterGroups
from flatten_dense.optim.schedules import CosineSchedule, PolySchedule, Schedule, StepSchedule

__all__ = [
    "IMAGENET_NO_DECAY",
    "SWIN_DENSE_NO_DECAY",
    "CosineSchedule",
    "Freezing",
    "ParameterGroups",
    "PolySchedule",
    "Schedule",
    "StepSchedule",
]
