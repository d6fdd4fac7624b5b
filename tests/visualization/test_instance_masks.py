import numpy as np
import pytest
from pycocotools import mask as rle_masks

from flatten_dense.visualization.instance_masks import hatch_mask, paint_mask

BLUE = (0, 0, 255)


def rle(inside):
    return rle_masks.encode(np.asfortranarray(inside.astype(np.uint8)))


def rectangle(height, width, left, top, right, bottom):
    inside = np.zeros((height, width), dtype=bool)
    inside[top:bottom, left:right] = True
    return inside


def test_the_outline_is_stronger_than_the_inside():
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    paint_mask(picture, rle(rectangle(40, 60, 10, 10, 50, 30)), BLUE, line=2)
    blue = picture[..., 2]
    assert (blue[10:12, 10:50] == blue[10, 10]).all()
    assert 0 < blue[20, 30] < blue[10, 10]
    assert blue[9, 30] == blue[30, 30] == blue[20, 9] == blue[20, 50] == 0


@pytest.mark.parametrize(("height", "width"), [(20, 30), (80, 120), (40, 120)])
def test_a_mask_is_scaled_to_the_picture(height, width):
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    paint_mask(picture, rle(rectangle(40, 60, 10, 10, 50, 30)), BLUE, line=1)
    painted = picture[..., 2] > 0
    down, across = height / 40, width / 60
    expected = rectangle(height, width, int(10 * across), int(10 * down), int(50 * across), int(30 * down))
    assert np.array_equal(painted, expected)


def test_overlapping_hatched_regions_share_their_lines():
    once, twice = np.zeros((2, 40, 60, 3), dtype=np.uint8)
    region = rle(rectangle(40, 60, 3, 5, 50, 30))
    hatch_mask(once, region, BLUE, line=1)
    for part in ((3, 5, 30, 30), (30, 5, 50, 30)):
        hatch_mask(twice, rle(rectangle(40, 60, *part)), BLUE, line=1)
    assert np.array_equal(once, twice)


@pytest.mark.parametrize("paint", [paint_mask, hatch_mask])
def test_an_empty_mask_changes_nothing(paint):
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    paint(picture, rle(np.zeros((40, 60), dtype=bool)), BLUE, line=2)
    assert not picture.any()
