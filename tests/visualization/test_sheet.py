from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.structures import LabelSpace, default_palette
from flatten_dense.visualization import prediction_sheet

LABELS = LabelSpace(("sky", "road"), ((10, 20, 30), (200, 0, 0)))
CAMVID = Path(__file__).parents[2] / "../shared/data/camvid_ade"


def labels_of(num_classes: int) -> LabelSpace:
    return LabelSpace(tuple(f"class {index}" for index in range(num_classes)), default_palette(num_classes))


def count(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(-1).sum())


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
