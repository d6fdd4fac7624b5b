"""What `flatten-dense profile` leaves: profile.json and profile.png."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flatten_dense.commands.profile_table import in_short
from flatten_dense.profiling.advice import Curve, advise, compare, curves_beside, growth
from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.sweep import Point, Settings
from flatten_dense.visualization.cost_curves import CostCurve, plot_costs


class Profile:
    """What has been measured so far.

    Args:
        settings: how.
        facts: the command and the machine, for the files.
    """

    def __init__(self, settings: Settings, facts: dict[str, Any]) -> None:
        self.settings = settings
        self._facts = facts
        self._points: dict[Choice, list[Point]] = {}

    def add(self, points: Sequence[Point]) -> None:
        """Take in points, each of the next size of its choice."""
        for point in points:
            self._points.setdefault(point.choice, []).append(point)

    @property
    def curves(self) -> list[Curve]:
        """Of the choices that have been taken to the last size."""
        return [curve for curve in self._points.values() if len(curve) == len(self.settings.sizes)]

    def conditions(self) -> str:
        """The machine and how the models run on it, in a line."""
        machine, settings = self._facts["machine"], self.settings
        threads = f"{settings.threads} thread" + ("" if settings.threads == 1 else "s")
        processor = machine.get("gpu") or f"{machine['processor']}, {threads}"
        images = "1 image" if settings.batch_size == 1 else f"{settings.batch_size} images"
        return f"{processor}, torch {machine['torch']}; {self._what()} of {images}, {settings.dtype}"

    def save(self, folder: Path) -> None:
        """Write both files, into a folder that is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "profile.json").write_text(self.to_json())
        self._plot(folder / "profile.png")

    def to_json(self) -> str:
        """All of it, with the time of every pass."""
        curves = self.curves
        names = ("batch_size", "train", "dtype", "device", "threads", "repetitions", "limit")
        content = {
            **self._facts,
            "settings": {name: getattr(self.settings, name) for name in names},
            "points": [self._point(point) for points in self._points.values() for point in points],
            "growth_exponents": [{**_name(curve[0].choice), **growth(curve)._asdict()} for curve in curves],
            "crossovers": [_crossover(curve, other) for curve in curves for other in curves_beside(curve, curves)],
            "advice": advise(curves),
        }
        return json.dumps(content, indent=2) + "\n"

    def _point(self, point: Point) -> dict[str, Any]:
        return {
            **_name(point.choice),
            "size": point.size,
            "seconds": point.median,
            "images_per_second": self.settings.batch_size / point.median if point.median else None,
            "peak_bytes": point.peak,
            "loaded_bytes": point.loaded,
            "macs": point.choice.macs.get(point.size),
            "parameters": point.choice.parameters,
            "repetitions": point.seconds,
            "skipped": point.skipped,
        }

    def _plot(self, path: Path) -> None:
        curves = list(self._points.values())
        models = list(dict.fromkeys(curve[0].choice.model for curve in curves))
        drawn = []
        for number, curve in enumerate(curves):
            choice = curve[0].choice
            beside = [other for other in curves_beside(curve, curves) if len(other) == len(curve)]
            found = compare(curve, beside[0]) if beside else None
            costs = [point.median for point in curve], [point.peak for point in curve]
            drawn.append(
                CostCurve(
                    str(choice),
                    models.index(choice.model) if len(models) > 1 else number,
                    [point.side for point in curve],
                    costs,
                    growth(curve)[:2],
                    (found.time.side, found.memory.side) if found else (None, None),
                    not choice.has_linear,
                    next((f"{in_short(point.size)} {point.skipped}" for point in curve if point.skipped), ""),
                )
            )
        titles = f"time of a {self._what()}", f"peak memory of a {self._what()}"
        plot_costs(drawn, path, self.conditions(), titles)

    def _what(self) -> str:
        return "forward and backward pass" if self.settings.train else "forward pass"


def _crossover(curve: Curve, other: Curve) -> dict[str, Any]:
    _, time, memory = compare(curve, other)
    beside = _name(other[0].choice)
    return {**_name(curve[0].choice), "beside": beside, "time": time._asdict(), "memory": memory._asdict()}


def _name(choice: Choice) -> dict[str, str | None]:
    return {"model": choice.model, "attention": choice.attention}
