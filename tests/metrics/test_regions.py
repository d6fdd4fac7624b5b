import re

import numpy as np
import pytest
from pycocotools import mask as rle_masks

from flatten_dense.metrics.regions import compress_mask, mask_fault

SIZE = (40, 60)
SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]


@pytest.fixture
def blob():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return (np.sin(x * 0.4 + y * 0.3) > 0.2).astype(np.uint8)


def run_lengths(mask):
    pixels = mask.T.ravel().astype(int)
    return np.diff(np.r_[0, np.flatnonzero(np.diff(np.r_[0, pixels])), len(pixels)]).tolist()


def forms(mask):
    packed = rle_masks.encode(np.asfortranarray(mask))
    return [packed, {**packed, "counts": packed["counts"].decode()}, {"size": list(SIZE), "counts": run_lengths(mask)}]


@pytest.mark.parametrize("form", [0, 1, 2], ids=["bytes", "text", "runs"])
def test_rle_of_every_form_is_the_mask(blob, form):
    mask = forms(blob)[form]
    assert mask_fault(mask, SIZE) is None
    assert np.array_equal(rle_masks.decode(compress_mask(mask, SIZE)), blob)


def test_polygons_are_one_mask_together():
    other = [40, 5, 50, 5, 50, 15, 40, 15]
    expected = np.zeros(SIZE, dtype=np.uint8)
    expected[5:25, 10:30] = expected[5:15, 40:50] = 1
    assert mask_fault([SQUARE, other], SIZE) is None
    assert np.array_equal(rle_masks.decode(compress_mask([SQUARE, other], SIZE)), expected)


@pytest.mark.parametrize("seed", range(5))
def test_whole_masks_of_any_shape_have_no_fault(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.uniform(size=SIZE) < rng.uniform()).astype(np.uint8)
    assert [mask_fault(form, SIZE) for form in forms(mask)] == [None] * 3


def damaged(change):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    packed = rle_masks.encode(np.asfortranarray(((x + y) % 9 < 4).astype(np.uint8)))
    return {**packed, "counts": change(packed["counts"])}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, "neither polygons nor RLE"),
        ({"counts": "abc"}, "neither polygons nor RLE"),
        ([], "no polygon"),
        ([[1, 1, 2, 2]], "3 or more points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "3 or more points"),
        ([[1, 1, 2, 2, 3, float("nan")]], "3 or more points"),
        ([SQUARE, None], "3 or more points"),
        ({"size": [60, 40], "counts": [2400]}, r"RLE of \[60, 40\] \(height, width\), the image is \[40, 60\]"),
        ({"size": [40, 60], "counts": [2399]}, "do not add up to 40 x 60"),
        ({"size": [40, 60], "counts": [-5, 2405]}, "do not add up"),
        ({"size": [40, 60], "counts": []}, "do not add up"),
        ({"size": [40, 60], "counts": ["a"]}, "cannot be read"),
        ({"size": [40, 60], "counts": 7}, "cannot be read"),
        ({"size": [40, 60], "counts": ""}, "cannot be read"),
        ({"size": [40, 60], "counts": "été"}, "cannot be read"),
        (damaged(lambda counts: counts[:-4]), "do not add up"),
        (damaged(lambda counts: counts + b"o"), "cannot be read"),
        (damaged(lambda counts: b"!" + counts), "cannot be read"),
    ],
)
def test_masks_that_cannot_be_used_are_told(mask, expected):
    assert re.search(expected, mask_fault(mask, SIZE))
