"""Measure the choices of a model over sizes of images, leaving out what would take too much."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from flatten_dense.layers import Size
from flatten_dense.profiling.case import Case, Precision
from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.fresh_process import FreshModel, NotMeasuredError
from flatten_dense.profiling.growth import forecast
from flatten_dense.profiling.memory import available_memory

_LEAST_REPETITIONS = 3
_PATIENCE = 30.0  # seconds for the repetitions of what is compared, beyond the least ones
_KEPT_FREE = 0.1  # share of the memory
_GIBIBYTE = 2**30


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        sizes: (H, W) of the images, ascending in pixels.
        batch_size: as all that follows but the last two, of :class:`Case`.
        train: forward and backward.
        dtype: precision.
        device: cpu or cuda.
        threads: on the CPU.
        repetitions: timed passes, fewer where they take long.
        limit: seconds that a pass may take.
    """

    sizes: Sequence[Size]
    batch_size: int = 1
    train: bool = False
    dtype: Precision = "float32"
    device: str = "cpu"
    threads: int | None = None
    repetitions: int = 10
    limit: float = 60.0

    def case(self, choice: Choice, size: Size) -> Case:
        """A choice at a size, so measured."""
        return Case(
            choice.model, size, choice.options, self.batch_size, self.train, self.dtype, self.device, self.threads
        )


@dataclass(frozen=True)
class Point:
    """A choice at a size: what was measured, or why nothing was.

    Attributes:
        choice: the model and its attention.
        size: (H, W).
        seconds: of each timed pass.
        peak: bytes above what was loaded, the most of all passes; None where that is not known.
        loaded: bytes with the model and its images loaded; None where that is not known.
        skipped: why there are no numbers, in words; None if there are.
    """

    choice: Choice
    size: Size
    seconds: tuple[float, ...] = ()
    peak: int | None = None
    loaded: int | None = None
    skipped: str | None = None

    @property
    def pixels(self) -> int:
        """Of an image."""
        return self.size[0] * self.size[1]

    @property
    def side(self) -> float:
        """Of a square of so many pixels."""
        return math.sqrt(self.pixels)

    @property
    def median(self) -> float | None:
        """Seconds of a pass; None if there are none."""
        return statistics.median(self.seconds) if self.seconds else None


def sweep(choices: Sequence[Choice], settings: Settings) -> Iterator[list[Point]]:
    """Measure choices over the sizes, from small to large; gives the points of each size as they come.

    On the CPU the choices take turns, so that what else the machine does hits them alike; on a GPU, whose memory they
    would share, each has its own turn.

    Args:
        choices: to be compared with each other.
        settings: how.

    Raises:
        ValueError: a model does not take a size.
    """
    known: dict[Choice, list[Point]] = {choice: [] for choice in choices}
    for size in settings.sizes:
        points = {
            choice: Point(choice, size, skipped=too_much(known[choice], choice, size, settings)) for choice in choices
        }
        possible = [choice for choice in choices if points[choice].skipped is None]
        for together in [possible] if settings.device == "cpu" else [[choice] for choice in possible]:
            points |= {point.choice: point for point in _measure(together, size, settings)}
        for choice, point in points.items():
            known[choice].append(point)
        yield list(points.values())


def too_much(known: Sequence[Point], choice: Choice, size: Size, settings: Settings) -> str | None:
    """Why a size should not be tried, in words, judged by the smaller ones; None if nothing speaks against it.

    Args:
        known: points of the choice at smaller sizes, ascending.
        choice: in question.
        size: in question.
        settings: with the limit.
    """
    measured = [point for point in known if point.median is not None]
    seconds = _forecast_seconds(measured, choice, size)
    if seconds is not None and seconds > settings.limit:
        return f"would take about {seconds:.0f} s, over the limit of {settings.limit:g} s"
    with_memory = [point for point in measured if point.peak]
    needed = forecast(
        [point.pixels for point in with_memory], [float(point.peak or 0) for point in with_memory], size[0] * size[1]
    )
    free = available_memory(torch.device(settings.device))
    if needed is not None and free is not None and needed > (1 - _KEPT_FREE) * free:
        return f"would need about {needed / _GIBIBYTE:.1f} GiB, {free / _GIBIBYTE:.1f} GiB are free"
    if known and known[-1].skipped is not None:
        return f"left out, since {known[-1].size[0]} x {known[-1].size[1]} was too much"
    return None


def _forecast_seconds(measured: Sequence[Point], choice: Choice, size: Size) -> float | None:
    """By the times of smaller sizes, and by the multiply-accumulates, which know of a quadratic term in advance."""
    by_time = forecast(
        [point.pixels for point in measured], [point.median or 0.0 for point in measured], size[0] * size[1]
    )
    if by_time is None:
        return None
    last = measured[-1]
    before, now = choice.macs.get(last.size), choice.macs.get(size)
    return by_time if not before or not now or not last.median else max(by_time, last.median * now / before)


def _measure(choices: Sequence[Choice], size: Size, settings: Settings) -> list[Point]:
    """Measure choices that take turns."""
    points = {choice: Point(choice, size) for choice in choices}
    with ExitStack() as stack:
        models: dict[Choice, FreshModel] = {}
        for choice in choices:
            try:
                models[choice] = stack.enter_context(FreshModel(settings.case(choice, size)))
            except (NotMeasuredError, RuntimeError) as error:
                points[choice] = replace(points[choice], skipped=_in_a_line(error))
        _take_turn(models, points, settings.limit)
        turn = sum(point.seconds[0] for point in points.values() if point.seconds)
        for _ in range(repetitions(settings.repetitions, turn)):
            _take_turn(models, points, settings.limit)
    return [replace(point, seconds=point.seconds[1:]) for point in points.values()]  # the first was for warm-up


def repetitions(wanted: int, seconds: float) -> int:
    """Number of turns: as wanted, but where they take long only as many as patience allows, and three at least.

    Args:
        wanted: by the user.
        seconds: that a turn takes.
    """
    affordable = int(_PATIENCE / seconds) if seconds else wanted
    return min(wanted, max(_LEAST_REPETITIONS, affordable))


def _take_turn(models: dict[Choice, FreshModel], points: dict[Choice, Point], limit: float) -> None:
    """Run a pass of each model, and drop those that fail."""
    for choice, model in list(models.items()):
        point = points[choice]
        try:
            taken = model.run(limit)
        except (NotMeasuredError, RuntimeError) as error:
            points[choice] = Point(choice, point.size, skipped=_in_a_line(error))
            del models[choice]
        else:
            seconds = (*point.seconds, taken.seconds)
            points[choice] = replace(point, seconds=seconds, peak=taken.peak, loaded=model.loaded)


def _in_a_line(error: Exception) -> str:
    last = str(error).splitlines()[-1].strip()
    return last if isinstance(error, NotMeasuredError) else f"failed: {last}"
