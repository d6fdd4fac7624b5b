"""What the benchmarks share: fair turns, and what a time depends on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import timm
import torch

from flatten_dense.profiling.machine import processor_name


def alternating_medians(
    calls: Sequence[Callable[[], object]], repetitions: int, warm_up: int, device: str = "cpu"
) -> list[float]:
    """Median seconds of each call, the calls taking turns.

    Args:
        calls: what to time.
        repetitions: timed turns of each.
        warm_up: turns of each before those.
        device: where the calls work; what they queued there is waited for.
    """
    on_gpu = torch.device(device).type == "cuda"
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(warm_up + repetitions):
        for call, own in zip(calls, seconds, strict=True):
            if on_gpu:
                torch.cuda.synchronize(device)
            started = time.perf_counter()
            call()
            if on_gpu:
                torch.cuda.synchronize(device)
            if turn >= warm_up:
                own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in seconds]


def device_seconds(call: Callable[[], object], repetitions: int, warm_up: int, device: str) -> float:
    """Median seconds that a call keeps its device busy, with cold caches on a GPU and without the time of launching.

    Args:
        call: what to time.
        repetitions: timed calls.
        warm_up: calls before those.
        device: where it works.
    """
    if torch.device(device).type != "cuda":
        return alternating_medians([call], repetitions, warm_up)[0]
    # Long enough to write that the call is launched meanwhile, and larger than any cache.
    other = torch.empty(2**30, dtype=torch.uint8, device=device)
    milliseconds = []
    for turn in range(warm_up + repetitions):
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(3):
            other.zero_()
        started.record()
        call()
        ended.record()
        torch.cuda.synchronize(device)
        if turn >= warm_up:
            milliseconds.append(started.elapsed_time(ended))
    return statistics.median(milliseconds) / 1e3


def machine(threads: int, device: str = "cpu") -> str:
    """What a timing depends on besides the model."""
    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, {versions}"
    return f"{processor_name()}, {threads} thread(s), {versions}"
