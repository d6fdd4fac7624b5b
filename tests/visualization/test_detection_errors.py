from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.axes import Axes

from flatten_dense.visualization import plot_detection_errors


class Errors(NamedTuple):
    counts: dict
    cost: dict
    ap50: float
    class_names: tuple
    score_threshold: float = 0.3


def errors(missed, correct, ap50=0.5, cost=0.2) -> Errors:
    counts = {"correct": np.array(correct), "background": np.zeros(len(correct), int), "missed": np.array(missed)}
    names = tuple(f"class {index}" for index in range(len(correct)))
    return Errors(counts, {"background": 0.0, "missed": cost}, ap50, names)


@pytest.fixture
def bars(monkeypatch):
    """The lengths of every group of bars, and the names beside them."""
    drawn, names = [], []
    barh, set_yticks = Axes.barh, Axes.set_yticks

    def recorded_bars(axes, places, lengths, **options):
        drawn.append(list(lengths))
        return barh(axes, places, lengths, **options)

    def recorded_names(axes, places, labels=None, **options):
        names.append(labels)
        return set_yticks(axes, places, labels, **options)

    monkeypatch.setattr(Axes, "barh", recorded_bars)
    monkeypatch.setattr(Axes, "set_yticks", recorded_names)
    return drawn, names


def test_counts_are_summed_over_the_classes_and_costs_stand_beside_them(tmp_path, bars):
    plot_detection_errors(errors(missed=[1, 4], correct=[7, 2]), tmp_path / "errors.png")
    counts, costs, *_ = bars[0]
    assert (counts, costs) == ([9, 0, 5], [0.0, 0.2])


def test_classes_with_most_mistakes_come_first(tmp_path, bars):
    plot_detection_errors(errors(missed=[1, 4, 2], correct=[7, 2, 0]), tmp_path / "errors.png")
    correct, background, missed = bars[0][2:]
    assert (correct, background, missed) == ([2, 0, 7], [0, 0, 0], [4, 2, 1])
    assert bars[1][2] == ["class 1", "class 2", "class 0"]


def test_no_more_than_twenty_classes_are_drawn_and_none_that_does_not_occur(tmp_path, bars):
    plot_detection_errors(errors(missed=[0, *range(50)], correct=[0] * 51), tmp_path / "errors.png")
    assert bars[1][2] == [f"class {index}" for index in range(50, 30, -1)]


def test_a_set_without_objects_still_gets_a_picture(tmp_path):
    nothing = errors(missed=[0], correct=[0], ap50=float("nan"), cost=float("nan"))
    plot_detection_errors(nothing, tmp_path / "errors.png")
    assert (tmp_path / "errors.png").stat().st_size > 1000
