from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from flatten_dense.visualization.cost_curves import CostCurve, plot_costs

SIDES = (224, 512, 1024)
LINEAR = CostCurve("LLLL", 0, SIDES, ((0.02, 0.1, 0.4), (2e7, 1e8, 4e8)), (1.0, 1.0), (400.0, None), False)
SOFTMAX = CostCurve(
    "SSSS", 1, SIDES, ((0.01, 0.2, None), (1e7, 2e8, None)), (1.5, 1.5), (None, None), True, "1024 took more than 60 s"
)


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Draw; returns the picture, the names in the legends and what is written at points."""

    def run(*curves: CostCurve) -> tuple[np.ndarray, list[str], list[str]]:
        labels, notes = [], []
        legend, annotate = Axes.legend, Axes.annotate

        def keep_labels(axes, *args, **options):
            labels.extend(axes.get_legend_handles_labels()[1])
            return legend(axes, *args, **options)

        def keep_note(axes, text, *args, **options):
            notes.append(text)
            return annotate(axes, text, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Axes, "legend", keep_labels)
            patch.setattr(Axes, "annotate", keep_note)
            plot_costs(curves, tmp_path / "costs.png", "a machine", ("time", "memory"))
        return np.asarray(Image.open(tmp_path / "costs.png").convert("RGB")).astype(int), labels, notes

    return run


def ink(picture: np.ndarray) -> int:
    return int((picture.max(-1) - picture.min(-1) > 60).sum())


def test_both_plots_are_drawn(draw):
    picture, _, _ = draw(LINEAR, SOFTMAX)
    half = picture.shape[1] // 2
    assert min(ink(picture[:, :half]), ink(picture[:, half:])) > 1000


def test_the_legend_tells_growth_and_why_a_line_ends(draw):
    _, labels, _ = draw(LINEAR, SOFTMAX)
    assert "LLLL, grows as pixels$^{1.00}$" in labels
    assert "SSSS, grows as pixels$^{1.50}$\n1024 took more than 60 s" in labels


def test_a_long_reason_is_cut(draw):
    _, labels, _ = draw(SOFTMAX._replace(why_it_ends="a long story " * 20))
    assert max(len(line) for label in labels for line in label.splitlines()) <= 70


def test_the_crossing_is_marked_in_the_plot_it_belongs_to(draw):
    assert draw(LINEAR, SOFTMAX)[2] == ["less from 400"]


def test_a_line_that_goes_to_the_end_has_no_reason_to_end(draw):
    whole = SOFTMAX._replace(sides=SIDES[:2], costs=((0.01, 0.2), (1e7, 2e8)))
    assert not [label for label in draw(LINEAR, whole)[1] if "took more" in label]


def test_unknown_memory_leaves_its_plot_empty(draw):
    picture, _, _ = draw(LINEAR._replace(costs=(LINEAR.costs[0], (None,) * 3)))
    half = picture.shape[1] // 2
    assert ink(picture[:, half:]) == 0 < ink(picture[:, :half])


def test_nothing_measured_still_gives_a_picture(draw):
    assert ink(draw(LINEAR._replace(costs=((None,) * 3, (None,) * 3)))[0]) == 0


def test_a_single_size_is_drawn(draw):
    one = CostCurve("L", 0, (224,), ((0.1,), (1e6,)), (None, None), (None, None), False)
    _, labels, _ = draw(one)
    assert labels[0] == "L"
