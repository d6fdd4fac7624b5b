import pytest
from matplotlib.figure import Figure
from PIL import Image

from flatten_dense.visualization import score_comparison
from flatten_dense.visualization.score_comparison import Scores, plot_scores

NAMED = [Scores("softmax", [60.0, 62.0], note="72.2"), Scores("focused", [64.0])]
NUMBERED = [Scores("2", [60.0, 62.0], 2), Scores("4", [], 4), Scores("whole", [64.0], 16)]


@pytest.fixture
def figures(monkeypatch):
    """Each figure that is drawn."""
    made = []

    def figure(*args, **kwargs):
        made.append(Figure(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(score_comparison, "Figure", figure)
    return made


def points(axes, marker):
    """(x, y) of all points of a marker, and those of different lines."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [(x, y) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_each_training_is_a_dot_and_each_model_has_its_mean(figures, tmp_path):
    plot_scores(NAMED, tmp_path / "plot.png", "title", "top1, %", "attention")
    (axes,) = figures[0].axes
    assert points(axes, "o") == [(0, 60), (0, 62), (1, 64)]
    assert points(axes, "_") == [(0, 61), (1, 64)]


def test_models_stand_at_their_positions_and_their_means_are_joined(figures, tmp_path):
    plot_scores(NUMBERED, tmp_path / "plot.png", "title", "top1, %", "window")
    (axes,) = figures[0].axes
    assert points(axes, "_") == [(2, 61), (16, 64)]
    assert axes.get_xscale() == "log"
    assert [line.get_linestyle() for line in axes.lines if line.get_marker() == "_"] == ["-"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "whole"]


def test_named_models_are_not_joined(figures, tmp_path):
    plot_scores(NAMED, tmp_path / "plot.png", "title", "top1, %", "attention")
    (axes,) = figures[0].axes
    assert {line.get_linestyle() for line in axes.lines} == {"None"}


def test_notes_stand_below_the_labels_and_are_explained(figures, tmp_path):
    plot_scores(NAMED, tmp_path / "plot.png", "title", "top1, %", "attention", "the paper's")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["softmax\n72.2", "focused"]
    assert axes.get_xlabel() == "attention\n(below it: the paper's)"


def test_the_picture_is_a_png(tmp_path):
    plot_scores(NUMBERED, tmp_path / "plot.png", "title", "top1, %", "window")
    assert Image.open(tmp_path / "plot.png").format == "PNG"
