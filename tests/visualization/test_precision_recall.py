from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.axes import Axes

from flatten_dense.structures import DetectionLabels, vivid_palette
from flatten_dense.visualization import plot_precision_recall


class Curves(NamedTuple):
    ap: np.ndarray
    ap50: np.ndarray
    precision: np.ndarray
    precision50: np.ndarray


def curves(*ap50: float) -> Curves:
    """Flat curves of these heights, half as high over all IoUs."""
    flat = np.array(ap50)[:, None].repeat(101, 1)
    return Curves(np.array(ap50) / 2, np.array(ap50), flat / 2, flat)


@pytest.fixture
def lines(monkeypatch):
    """Every line that is drawn: its label and its first height."""
    drawn = []
    plot = Axes.plot

    def recorded(axes, steps, values, *args, **options):
        drawn.append((options["label"], round(float(values[0]), 3)))
        return plot(axes, steps, values, *args, **options)

    monkeypatch.setattr(Axes, "plot", recorded)
    return drawn


def draw(path: Path, regions: dict[str, Curves]) -> None:
    count = len(next(iter(regions.values())).ap)
    names = tuple(f"class {index}" for index in range(count))
    labels = DetectionLabels(names, vivid_palette(count), tuple(range(count)))
    plot_precision_recall(regions, labels, path / "curves.png")
    assert (path / "curves.png").stat().st_size > 1000


def test_means_leave_out_classes_without_objects(tmp_path, lines):
    draw(tmp_path, {"bbox": curves(0.4, float("nan"), 0.8)})
    assert lines[:2] == [("IoU ≥ 0.5: AP 0.600", 0.6), ("mean over IoU 0.50:0.95: AP 0.300", 0.3)]


def test_each_class_has_its_curve_the_best_first(tmp_path, lines):
    draw(tmp_path, {"bbox": curves(0.4, float("nan"), 0.8)})
    assert lines[2:] == [("class 2: 0.800", 0.8), ("class 0: 0.400", 0.4)]


def test_of_many_classes_the_best_and_the_worst_are_drawn(tmp_path, lines):
    draw(tmp_path, {"bbox": curves(*(index / 100 for index in range(50)))})
    assert [height for _, height in lines[2:]] == [*np.arange(49, 39, -1) / 100, *np.arange(9, -1, -1) / 100]


def test_masks_have_curves_of_their_own(tmp_path, lines):
    draw(tmp_path, {"bbox": curves(0.4, 0.8), "segm": curves(0.2, 0.6)})
    assert [height for _, height in lines] == [0.6, 0.3, 0.8, 0.4, 0.4, 0.2, 0.6, 0.2]


def test_a_set_without_objects_still_gets_a_picture(tmp_path, lines):
    draw(tmp_path, {"bbox": curves(float("nan"), float("nan"))})
    assert lines == []
