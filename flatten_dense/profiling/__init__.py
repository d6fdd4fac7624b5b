"""What a model costs on this machine: time and memory, each measured in a fresh process."""

from flatten_dense.profiling.case import Case, Precision
from flatten_dense.profiling.fresh_process import FreshModel, NotMeasuredError, OutOfMemoryError, Pass, TooSlowError
from flatten_dense.profiling.measurements import alternating_passes, peak_memory
from flatten_dense.profiling.memory import PeakMemory, available_memory

__all__ = [
    "Case",
    "FreshModel",
    "NotMeasuredError",
    "OutOfMemoryError",
    "Pass",
    "PeakMemory",
    "Precision",
    "TooSlowError",
    "alternating_passes",
    "available_memory",
    "peak_memory",
]
