import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from flatten_dense.visualization import curves, plot_curves


def write_metrics(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", "val/mIoU", "train/lr", "note"])
        writer.writeheader()
        for step in range(0, 100, 10):
            writer.writerow({"step": step, "train/loss": 1 / (step + 1), "train/lr": 1e-3, "note": "text"})
        writer.writerow({"step": 99, "val/mIoU": 0.5, "train/loss": "nan"})
        writer.writerow({"val/mIoU": 0.9})


def ink(path: Path) -> int:
    """Pixels that are neither white, grey nor black: the curves."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((picture.max(-1) - picture.min(-1) > 60).sum())


def test_curves_of_a_metrics_file_with_blanks_are_drawn(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv")
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert ink(tmp_path / "curves.png") > 1000


def test_rows_give_the_same_curves_as_their_file(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    plot_curves(str(tmp_path / "metrics.csv"), tmp_path / "a.png")
    plot_curves(rows, tmp_path / "b.png")
    assert np.array_equal(Image.open(tmp_path / "a.png"), Image.open(tmp_path / "b.png"))


def test_steps_repeated_after_a_resume_show_the_later_row(tmp_path: Path) -> None:
    once = [{"step": step, "train/loss": 2.0 - step / 10} for step in range(10)]
    plot_curves(once, tmp_path / "once.png")
    plot_curves(
        [*once[:6], {"step": 6, "train/loss": 9.0}, {"step": 7, "train/loss": 9.0}, *once[5:]], tmp_path / "resumed.png"
    )
    assert np.array_equal(Image.open(tmp_path / "once.png"), Image.open(tmp_path / "resumed.png"))


@pytest.mark.parametrize("column", ["train/loss", "val/mIoU", "train/lr", "lr-AdamW/pg1"])
def test_each_kind_of_column_is_drawn(tmp_path: Path, column: str) -> None:
    plot_curves([{"step": step, column: str(step / 10)} for step in range(5)], tmp_path / "curves.png")
    assert ink(tmp_path / "curves.png") > 100


@pytest.mark.parametrize("rows", [[], [{"step": 1, "train/loss": ""}], [{"train/loss": 1.0}]])
def test_a_run_without_values_still_gets_a_picture(tmp_path: Path, rows: list[dict[str, str | float]]) -> None:
    plot_curves(rows, tmp_path / "curves.png")
    assert ink(tmp_path / "curves.png") == 0


def test_scores_of_boxes_and_masks_are_drawn_others_not(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "_draw_scores", lambda axes, found: drawn.append(set(found)))
    names = ("val/bbox_AP", "val/segm_AP", "val/bbox_AP50", "val/mIoU", "val/mAcc")
    curves.plot_curves([{"step": 1, **dict.fromkeys(names, 0.5)}], tmp_path / "curves.png")
    assert drawn == [{"val/bbox_AP", "val/segm_AP", "val/mIoU"}]


def test_losses_of_one_colour_differ_in_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    monkeypatch.setattr(Axes, "legend", lambda axes, **_: lines.extend(axes.lines))
    row = {"step": 1, **{f"train/loss_{number}": 1.0 for number in range(12)}}
    plot_curves([row, {**row, "step": 2}], tmp_path / "curves.png")
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
