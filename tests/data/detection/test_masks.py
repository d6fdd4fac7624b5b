import numpy as np
import pytest
from pycocotools import mask as coco_mask

from flatten_dense.data.detection.masks import encode, read_segmentation

SQUARE = [1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]  # 3 wide, 2 high
OTHER = [5.0, 0.0, 6.0, 0.0, 6.0, 4.0, 5.0, 4.0]


def decoded(segmentation, height=4, width=6):
    return coco_mask.decode(encode(read_segmentation(segmentation, height, width), height, width))


def runs_of(mask):
    """Lengths of runs down the columns, beginning with zeros."""
    changes = np.flatnonzero(np.diff(mask.flatten(order="F"), prepend=0, append=2))
    return np.diff(changes, prepend=0).tolist()


def test_parts_of_a_mask_are_united():
    expected = np.zeros((4, 6), np.uint8)
    expected[1:3, 1:4] = 1
    expected[:, 5] = 1
    np.testing.assert_array_equal(decoded([SQUARE, OTHER]), expected)


def test_a_bare_polygon_is_one_part():
    assert read_segmentation(SQUARE, 4, 6) == [SQUARE]


def test_a_polygon_beyond_the_image_is_cut_off():
    assert decoded([[-9.0, -9.0, 3.0, -9.0, 3.0, 2.0, -9.0, 2.0]]).sum() == 3 * 2


@pytest.mark.parametrize("seed", range(5))
def test_both_forms_of_run_lengths_mean_the_same(seed):
    mask = np.random.default_rng(seed).integers(0, 2, (70, 60), dtype=np.uint8)
    mask[5:40] = 0  # long and short runs, so that differences need several groups and signs
    compressed = coco_mask.encode(np.asfortranarray(mask))
    as_string = {"size": [70, 60], "counts": compressed["counts"].decode()}
    as_list = {"size": [70, 60], "counts": runs_of(mask)}
    assert read_segmentation(as_list, 70, 60) == read_segmentation(as_string, 70, 60) == as_string
    np.testing.assert_array_equal(decoded(as_list, 70, 60), mask)


@pytest.mark.parametrize("nothing", [None, [], {}, [[]], [[1, 1, 2, 2]], [1, 1, 2, 2]])
def test_no_mask(nothing):
    assert read_segmentation(nothing, 4, 6) is None


def test_polygons_of_two_points_are_left_out():
    assert read_segmentation([[0, 0, 4, 4], SQUARE], 4, 6) == [SQUARE]


@pytest.mark.parametrize(
    "polygons", [[[*SQUARE, 1.0]], [[*SQUARE, float("nan"), 1]], [["1", 1, 2, 2, 3, 3]], [[10**400] * 6], [3, [1]]]
)
def test_polygons_that_are_none(polygons):
    with pytest.raises(ValueError, match="a polygon is a list of finite numbers x, y, x, y"):
        read_segmentation(polygons, 4, 6)


@pytest.mark.parametrize(
    "counts", [[24, 1], [3, 4], [-3, 27], [3, "x"], [], "", "garbage~~~", "0123456789", "é", None, "P", {}]
)
def test_run_lengths_that_do_not_add_up(counts):
    with pytest.raises(ValueError, match="do not add up to the image's 4x6 pixels"):
        read_segmentation({"size": [4, 6], "counts": counts}, 4, 6)


def test_run_lengths_of_another_size():
    with pytest.raises(ValueError, match=r"of size \[6, 4\]; the image's \[height, width\] is \[4, 6\]"):
        read_segmentation({"size": [6, 4], "counts": [24]}, 4, 6)


def test_text_is_no_mask():
    with pytest.raises(ValueError, match="expected polygons or run lengths, got 'circle'"):
        read_segmentation("circle", 4, 6)
