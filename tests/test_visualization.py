import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.structures import LabelSpace, default_palette
from flatten_dense.visualization import colorize, legend, overlay, plot_curves, prediction_sheet

LABELS = LabelSpace(("sky", "road"), ((10, 20, 30), (200, 0, 0)))
CAMVID = Path(__file__).parents[1] / "../shared/data/camvid_ade"


def labels_of(num_classes: int) -> LabelSpace:
    return LabelSpace(tuple(f"class {index}" for index in range(num_classes)), default_palette(num_classes))


def count(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(-1).sum())


def test_colorize_paints_palette_colours_and_leaves_ignored_black() -> None:
    painted = colorize(torch.tensor([[0, 1, 255]]), LABELS)
    assert painted.dtype == torch.uint8
    assert painted[:, 0].T.tolist() == [[10, 20, 30], [200, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("wrong", [2, -1])
def test_colorize_refuses_what_is_no_class(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"holds {wrong}, expected 0\.\.1 or 255"):
        colorize(torch.tensor([[0, wrong]]), LABELS)


def test_overlay_blends_and_leaves_ignored_pixels_of_the_photo() -> None:
    image = torch.full((3, 1, 2), 100, dtype=torch.uint8)
    blended = overlay(image, torch.tensor([[1, 255]]), LABELS, alpha=0.25)
    assert blended.dtype == torch.uint8
    assert blended[:, 0].T.tolist() == [[125, 75, 75], [100, 100, 100]]


def test_overlay_refuses_a_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        overlay(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 5, dtype=torch.int64), LABELS)


def test_overlay_refuses_alpha_outside_its_range() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, got 2"):
        overlay(torch.zeros(3, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.int64), LABELS, alpha=2)


def test_legend_shows_the_colour_of_every_class_asked_for() -> None:
    assert all(count(legend(LABELS), colour) > 100 for colour in LABELS.palette)
    assert count(legend(LABELS, [1]), LABELS.palette[0]) == 0


def test_sheet_paints_errors_red_and_ignored_grey_in_proportion() -> None:
    truth = torch.zeros(100, 100, dtype=torch.int64)
    truth[:10] = 255
    prediction = torch.zeros_like(truth)
    prediction[:30] = 1
    image = torch.full((3, 100, 100), 255, dtype=torch.uint8)
    sheet = prediction_sheet([image], [truth], [prediction], LABELS)
    red, grey = count(sheet, (214, 24, 31)), count(sheet, (120, 120, 120))
    assert red == pytest.approx(2 * grey, rel=0.1)
    assert red == pytest.approx(0.2 * 256 * 256, rel=0.1)


def test_perfect_prediction_shows_red_in_the_legend_only() -> None:
    mask = torch.ones(100, 100, dtype=torch.int64)
    sheet = prediction_sheet([torch.zeros(3, 100, 100, dtype=torch.uint8)], [mask], [mask], LABELS)
    assert 0 < count(sheet, (214, 24, 31)) <= 16 * 16


def test_photo_is_brought_to_the_size_of_its_truth() -> None:
    mask = torch.zeros(60, 80, dtype=torch.int64)
    photo = torch.full((3, 30, 40), 77, dtype=torch.uint8)
    same = prediction_sheet([torch.full((3, 60, 80), 77, dtype=torch.uint8)], [mask], [mask], LABELS)
    assert prediction_sheet([photo], [mask], [mask], LABELS).tobytes() == same.tobytes()


@pytest.mark.parametrize("size", [(200, 50), (20, 500), (3, 900), (1, 1)])
@pytest.mark.parametrize("num_classes", [2, 150])
@pytest.mark.parametrize("num_images", [1, 8])
def test_no_sheet_is_larger_than_2000_pixels(size: tuple[int, int], num_classes: int, num_images: int) -> None:
    mask = torch.arange(size[0] * size[1]).view(size) % num_classes
    image = torch.zeros(3, *size, dtype=torch.uint8)
    rows = [image] * num_images, [mask] * num_images, [mask] * num_images
    sheet = prediction_sheet(*rows, labels_of(num_classes), ["a long name " * 30] * num_images, max_rows=8)
    assert max(sheet.size) <= 2000


def test_no_more_rows_than_asked_for() -> None:
    mask = torch.zeros(100, 100, dtype=torch.int64)
    rows = [torch.zeros(3, 100, 100, dtype=torch.uint8)] * 5, [mask] * 5, [mask] * 5
    two, three = (prediction_sheet(*rows, LABELS, max_rows=number).height for number in (2, 3))
    assert three - two > 256


def test_legend_of_many_classes_names_those_that_cover_most() -> None:
    labels = labels_of(150)
    mask = torch.zeros(100, 100, dtype=torch.int64)
    mask[:50] = 149
    sheet = prediction_sheet([torch.zeros(3, 100, 100, dtype=torch.uint8)], [mask], [mask], labels)
    right_edge = sheet.crop((sheet.width - 150, 0, sheet.width, sheet.height))
    assert count(right_edge, labels.palette[149]) > 100
    assert count(right_edge, labels.palette[1]) == 0


def test_wholly_unlabelled_truth_is_drawn() -> None:
    truth = torch.full((50, 50), 255)
    sheet = prediction_sheet([torch.zeros(3, 50, 50, dtype=torch.uint8)], [truth], [truth * 0], LABELS)
    assert count(sheet, (120, 120, 120)) > 0.9 * 256 * 256


def test_sheet_refuses_a_missing_truth() -> None:
    mask = torch.zeros(4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="1 images, 0 truths, 1 predictions"):
        prediction_sheet([torch.zeros(3, 4, 4, dtype=torch.uint8)], [], [mask], LABELS)


def test_sheet_refuses_a_prediction_of_another_size() -> None:
    image, mask = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"prediction \(3, 4\) and truth \(4, 4\)"):
        prediction_sheet([image], [mask], [mask[:3]], LABELS)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the real street scenes are not beside this checkout")
def test_street_scenes_make_a_sheet_with_every_class_that_is_there() -> None:
    names = [line.split("\t")[1] for line in (CAMVID / "classes.txt").read_text().splitlines()[1:]]
    labels = LabelSpace(tuple(names), default_palette(len(names)), reduce_zero_label=True)
    photo = sorted((CAMVID / "images/validation").iterdir())[0]
    image = torch.from_numpy(np.asarray(Image.open(photo)).copy()).permute(2, 0, 1)
    mask = Image.open(CAMVID / "annotations/validation" / f"{photo.stem}.png")
    truth = labels.from_disk(torch.from_numpy(np.asarray(mask).copy()))
    sheet = prediction_sheet([image], [truth], [truth.clamp(max=10)], labels, [photo.name])
    large = [index for index in range(len(names)) if (truth == index).sum() > 500]
    assert all(count(sheet, labels.palette[index]) > 500 for index in large)


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
