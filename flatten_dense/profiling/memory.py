"""Memory of this process and its device: the most that a pass takes, and what is free."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_STATUS = Path("/proc/self/status")
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_CGROUP = Path("/sys/fs/cgroup")


class PeakMemory:
    """The most memory in use at once since this was made, above what was in use then.

    On the CPU that is resident memory of the process, as the kernel keeps its peak; on CUDA what PyTorch has allocated.
    Where the kernel does not let its peak be set back (other systems than Linux), the peak so far counts as in use, so
    the measure is exact only in a process that has not taken more before than it has now: a fresh one.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _give_back_unused()
            with contextlib.suppress(OSError):
                _CLEAR_REFS.write_text("5")  # sets the peak of resident memory to what is resident now
        self.resting = self._peak()
        """Bytes in use when this was made; None where the system does not tell."""

    def read(self) -> int | None:
        """Bytes above :attr:`resting`, at the highest so far; None where the system does not tell."""
        peak = self._peak()
        return None if peak is None or self.resting is None else max(0, peak - self.resting)

    def _peak(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else peak_resident()


def peak_resident() -> int | None:
    """Most bytes of this process that were in RAM at once; None where the system does not tell."""
    if _STATUS.exists():
        # ru_maxrss would begin with the peak of the process that started this one.
        return _kibibytes(_STATUS, "VmHWM")
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory(device: torch.device) -> int | None:
    """Bytes that a process could still take; None where the system does not tell.

    Args:
        device: on the CPU a container's limit counts, too.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    found = [_kibibytes(meminfo, "MemAvailable") if meminfo.exists() else None, *_left_in_container()]
    known = [number for number in found if number is not None]
    return min(known) if known else None


def _give_back_unused() -> None:
    """Let the C library return to the system what was freed, so that a pass does not live on it unseen."""
    with contextlib.suppress(OSError, AttributeError):  # another library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def spare_the_machine(device: torch.device) -> None:
    """Let a want of memory end an allocation of this process, or the process, rather than the user's other ones.

    Args:
        device: that the process works on; those of a GPU reserve far more addresses than they use, so have no limit.
    """
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")  # whom the kernel ends first
    available = available_memory(device)
    if resource is None or device.type != "cpu" or available is None or not _STATUS.exists():
        return
    own = _kibibytes(_STATUS, "VmData")
    if own is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = own + available if hard == resource.RLIM_INFINITY else min(hard, own + available)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _left_in_container() -> list[int]:
    """What the control groups of Linux, version 2 or 1, leave to this container."""
    left = []
    for limit, usage in (
        (_CGROUP / "memory.max", _CGROUP / "memory.current"),
        (_CGROUP / "memory/memory.limit_in_bytes", _CGROUP / "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            left.append(max(0, int(limit.read_text()) - int(usage.read_text())))
    return left


def _kibibytes(path: Path, name: str) -> int | None:
    """A line ``name:  123 kB`` of a file of the kernel, in bytes."""
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
