import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_masks

from flatten_dense.structures import DetectionLabels, Detections
from flatten_dense.visualization import boxes as drawing
from flatten_dense.visualization import draw_detections, draw_truth

BLUE, GREEN, RED = (40, 90, 240), (20, 200, 60), (214, 24, 31)
LABELS = DetectionLabels(("cat", "dog"), (BLUE, GREEN), (7, 3))


def grey(height=480, width=640):
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def found(*boxes, scores=None, labels=None, masks=None):
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores or [0.9] * len(boxes)),
        torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        masks,
    )


def truth(*boxes, crowd=0, **more):
    crowds = torch.full((len(boxes),), crowd)
    return {"boxes": found(*boxes).boxes, "labels": torch.zeros_like(crowds), "iscrowd": crowds, **more}


def disc(height, width, x, y, radius):
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return rle_masks.encode(np.asfortranarray(inside.astype(np.uint8))), inside


def where(picture: Image.Image, colour) -> np.ndarray:
    return (np.asarray(picture) == colour).all(-1)


def changed(picture: Image.Image) -> np.ndarray:
    return (np.asarray(picture) != 128).any(-1)


@pytest.fixture
def without_tags(monkeypatch):
    monkeypatch.setattr(drawing, "place_tags", lambda boxes, *_: [None] * len(boxes))


@pytest.mark.usefixtures("without_tags")
def test_a_box_is_drawn_in_its_class_colour_where_it_is():
    picture = draw_detections(grey(), found([100, 200, 300, 400], labels=[1]), LABELS)
    rows, columns = np.nonzero(where(picture, GREEN))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (100, 200, 299, 399)
    assert not changed(picture)[210:390, 110:290].any()


@pytest.mark.usefixtures("without_tags")
def test_boxes_of_a_larger_image_are_scaled_to_the_photo():
    picture = draw_detections(grey(), found([200, 300, 800, 900]), LABELS, image_size=(960, 1280))
    rows, columns = np.nonzero(where(picture, BLUE))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (100, 150, 399, 449)


def test_guesses_are_left_out():
    drawn = draw_detections(grey(), found([9, 9, 99, 99], [200, 200, 400, 400], scores=[0.9, 0.2]), LABELS)
    alone = draw_detections(grey(), found([9, 9, 99, 99]), LABELS)
    assert drawn.tobytes() == alone.tobytes()


@pytest.mark.usefixtures("without_tags")
def test_objects_of_one_class_differ_in_shade():
    picture = draw_detections(grey(), found([10, 10, 100, 100], [200, 200, 300, 300]), LABELS)
    assert picture.getpixel((10, 10)) == BLUE
    assert picture.getpixel((200, 200)) not in (BLUE, (128, 128, 128))


@pytest.mark.usefixtures("without_tags")
def test_a_mask_tints_its_object_and_nothing_else():
    mask, inside = disc(480, 640, 200, 240, 80)
    drawn = changed(draw_detections(grey(), found([120, 160, 281, 321], masks=[mask]), LABELS))
    within_the_frame = slice(166, 315), slice(126, 275)
    assert np.array_equal(drawn[within_the_frame], inside[within_the_frame])
    assert not drawn[:160].any()


@pytest.mark.usefixtures("without_tags")
def test_only_what_is_wrong_is_red():
    two = found([10, 10, 100, 100], [200, 200, 300, 300])
    red = where(draw_detections(grey(), two, LABELS, wrong=[False, True]), RED)
    assert red[:, 190:310].any()
    assert not red[:, :190].any()


def test_what_is_marked_has_a_red_tag_beside_its_name():
    box = truth([200, 200, 300, 300])
    marked, plain = (draw_truth(grey(), box, LABELS, missed=[missed]) for missed in (True, False))
    assert where(marked, RED)[150:195].sum() > 50
    assert not where(plain, RED).any()


@pytest.mark.usefixtures("without_tags")
@pytest.mark.parametrize("with_mask", [True, False])
def test_a_crowd_is_hatched_and_its_box_dashed(with_mask):
    masks = {"masks": [disc(480, 640, 200, 240, 80)[0]]} if with_mask else {}
    drawn = changed(draw_truth(grey(), truth([120, 160, 281, 321], crowd=1, **masks), LABELS))
    assert 0.05 < drawn[210:270, 170:230].mean() < 0.4
    assert 0.3 < drawn[160, 120:281].mean() < 0.9


def test_the_score_is_written_and_truth_has_none(monkeypatch):
    written = []
    monkeypatch.setattr(drawing, "place_tags", lambda boxes, sizes, _: [(0, 0, 0)] * len(boxes))
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, xy, text, **_: written.append(text))
    draw_detections(grey(), found([10, 10, 100, 100], scores=[0.876], labels=[1]), LABELS)
    draw_truth(grey(), truth([10, 10, 100, 100]), LABELS)
    draw_truth(grey(), truth([10, 10, 100, 100], crowd=1), LABELS)
    assert written == ["dog 0.88", "cat", "cat (crowd)"]


def test_text_grows_less_than_the_picture():
    def tag_height(side):
        picture = draw_truth(grey(side, side), truth([0, side / 2, side, side]), LABELS)
        return int(where(picture, BLUE)[: side // 2, 1].sum())

    small, large = tag_height(512), tag_height(4096)
    assert 2 * small < large < 6 * small


def test_a_thumbnail_is_enlarged_so_that_names_fit_in():
    picture = draw_truth(grey(96, 128), truth([10, 20, 60, 90]), LABELS)
    assert picture.size == (512, 384)
    assert (np.nonzero(where(picture, BLUE).any(0))[0].min()) == 40


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (700, 3), (3000, 4000)])
def test_any_size_and_any_box_can_be_drawn(size):
    boxes = [[-50, -50, 5000, 5000], [0, 0, 0, 0], [5, 5, 5, 80], [4999, 4999, 5000, 5000]]
    picture = draw_detections(grey(*size), found(*boxes), LABELS, wrong=[True] * 4)
    assert picture.width >= size[1]


def test_an_image_without_objects_is_the_photo():
    photo = torch.randint(0, 256, (3, 480, 640), dtype=torch.uint8)
    assert np.array_equal(draw_detections(photo, found(), LABELS), photo.permute(1, 2, 0))
