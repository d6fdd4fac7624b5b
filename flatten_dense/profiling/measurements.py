"""Time and memory of cases, each in a fresh process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from flatten_dense.profiling.case import Case
from flatten_dense.profiling.fresh_process import FreshModel, Pass


def peak_memory(case: Case) -> int:
    """Bytes that the first pass of a case takes, above the model and its images.

    Args:
        case: what to run, once, in a fresh process.

    Raises:
        OutOfMemoryError: there are not so many.
        ValueError: the model cannot be made, or the system does not tell.
    """
    with FreshModel(case) as model:
        peak = model.run().peak
    if peak is None:
        raise ValueError(f"this system does not tell the memory of a process on {case.device}")
    return peak


def alternating_passes(cases: Sequence[Case], repetitions: int, warm_up: int = 1) -> list[list[Pass]]:
    """Passes of several cases that take turns, so that what else the machine does hits them alike.

    Args:
        cases: all loaded at once, each in a fresh process.
        repetitions: turns.
        warm_up: turns before those, left out.

    Returns:
        For each case the passes of its turns.

    Raises:
        OutOfMemoryError: the memory does not suffice.
        ValueError: a model cannot be made.
    """
    with ExitStack() as stack:
        models = [stack.enter_context(FreshModel(case)) for case in cases]
        turns = [[model.run() for model in models] for _ in range(warm_up + repetitions)]
    return [list(passes) for passes in zip(*turns[warm_up:], strict=True)]
