import math

import pytest
import torch
from torch import Tensor

from flatten_dense.data.detection.pixel_map import PixelMap
from flatten_dense.data.detection.transforms import (
    CropIntoBounds,
    DetectionTrainTransform,
    RandomShortSide,
    RandomSizedCrop,
)
from flatten_dense.data.transforms import resized_size
from flatten_dense.structures import Normalization

SWIN = {"short_sides": tuple(range(480, 801, 32)), "crop": 0.5}


def photo(height, width):
    """Pixels that hold their own place: red is the column, green the row, both scaled to 0..255."""
    rows = torch.linspace(0, 255, height).view(-1, 1).expand(height, width)
    columns = torch.linspace(0, 255, width).expand(height, width)
    return torch.stack([columns, rows, torch.zeros_like(rows)]).round().to(torch.uint8)


def sizes(transform, height, width, times=80):
    torch.manual_seed(0)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    return {tuple(transform(image)[0].shape[1:]) for _ in range(times)}


@pytest.mark.parametrize(
    ("size", "expected"), [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 1000), (400, 1333))]
)
def test_the_published_resize(size, expected):
    assert sizes(DetectionTrainTransform(), *size, times=3) == {expected}


def test_short_sides_are_drawn_from_the_list_and_the_long_one_is_bounded():
    drawn = sizes(DetectionTrainTransform(short_sides=SWIN["short_sides"]), 48, 64)
    assert drawn == {resized_size(48, 64, (1333, short)) for short in range(480, 801, 32)}
    drawn = sizes(DetectionTrainTransform(short_sides=SWIN["short_sides"]), 30, 120)
    assert max(width for _, width in drawn) == 1333


def test_half_of_the_images_are_cropped_to_a_part_that_is_enlarged():
    torch.manual_seed(0)
    transform = DetectionTrainTransform(**SWIN)
    image = torch.zeros(3, 120, 160, dtype=torch.uint8)
    shares = []
    for _ in range(120):
        augmented, pixel_map = transform(image)
        height, width = augmented.shape[1:]
        factors = pixel_map.as_subclass(Tensor)[0].abs()
        visible = torch.tensor([width, height]) / factors / torch.tensor([160.0, 120.0])
        shares.append(visible.tolist())
        assert 480 <= min(height, width) <= 800
        assert max(height, width) <= 1333
    whole = [all(share > 0.999 for share in pair) for pair in shares]
    # A crop may hold all of an image whose sides became 400 and 533, but hardly ever does.
    assert 0.4 < sum(whole) / len(whole) < 0.6
    heights = [share for (_, share), all_there in zip(shares, whole, strict=True) if not all_there]
    assert min(heights) >= 384 / 600 - 0.01
    assert min(heights) < 0.75
    assert max(heights) > 0.95


def test_a_crop_draws_height_and_width_by_themselves():
    torch.manual_seed(0)
    crop = RandomSizedCrop((384, 600))
    image = torch.zeros(1, 700, 900, dtype=torch.uint8)
    drawn = torch.tensor([crop(image).shape[1:] for _ in range(300)]).double()
    assert drawn.min() >= 384
    assert drawn.max() <= 600
    torch.testing.assert_close(drawn.mean(0), torch.full((2,), 492.0, dtype=torch.float64), rtol=0, atol=15)
    assert torch.corrcoef(drawn.T)[0, 1].abs() < 0.15


def test_a_side_of_the_image_bounds_the_crop():
    image = torch.zeros(1, 300, 500, dtype=torch.uint8)
    shapes = [RandomSizedCrop((384, 600))(image).shape for _ in range(50)]
    assert {shape[1] for shape in shapes} == {300}
    assert max(shape[2] for shape in shapes) <= 500


@pytest.mark.parametrize("size", [(500, 900), (900, 500), (70, 80)])
def test_crops_into_bounds_keep_the_orientation(size):
    height, width = CropIntoBounds((600, 400))(torch.zeros(1, *size)).shape[1:]
    bounds = (600, 400) if size[0] > size[1] else (400, 600)
    assert (height, width) == (min(size[0], bounds[0]), min(size[1], bounds[1]))


def test_large_scale_jitter_makes_small_images_and_parts_of_large_ones():
    drawn = sizes(DetectionTrainTransform(scale=(100, 100), scale_jitter=(0.1, 2.0)), 60, 80)
    assert max(max(size) for size in drawn) == 100
    assert min(max(size) for size in drawn) < 20
    assert (100, 100) in drawn  # at a factor of 4/3 and more


@pytest.mark.parametrize(
    "options",
    [{"flip": 0.0}, {"flip": 1.0}, SWIN, {"scale": (400, 400), "scale_jitter": (0.8, 2.0)}, {"flip": 1.0, **SWIN}],
)
def test_the_pixel_map_says_where_pixels_went(options):
    torch.manual_seed(1)
    for _ in range(5):
        image, pixel_map = DetectionTrainTransform(**options)(photo(120, 160))
        height, width = image.shape[1:]
        assert pixel_map.image_size == (height, width)
        factor, shift, _ = pixel_map.as_subclass(Tensor)
        for x, y in [(width // 2, height // 3), (width // 4, height // 2)]:
            source = (torch.tensor([x + 0.5, y + 0.5]) - shift) / factor - 0.5
            expected = source / torch.tensor([159.0, 119.0]) * 255
            torch.testing.assert_close(image[:2, y, x].double(), expected, rtol=0, atol=2.0)


def test_mirrored_images_are_as_many_as_asked_for():
    torch.manual_seed(0)
    transform = DetectionTrainTransform(scale=(16, 12), flip=0.25)
    factors = [float(transform(photo(12, 16))[1].as_subclass(Tensor)[0, 0]) for _ in range(400)]
    assert 0.2 < sum(factor < 0 for factor in factors) / 400 < 0.3


def test_photometric_distortion_leaves_the_place_of_pixels():
    torch.manual_seed(0)
    image, pixel_map = DetectionTrainTransform(scale=(16, 12), flip=0.0, photometric=True)(photo(12, 16))
    assert image.dtype == torch.uint8
    assert not torch.equal(image, photo(12, 16))
    torch.testing.assert_close(pixel_map, PixelMap.of(photo(12, 16)))


def test_normalize_is_that_of_the_model():
    transform = DetectionTrainTransform(normalization=Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    normalized = transform.normalize(torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1))
    torch.testing.assert_close(normalized, torch.tensor([-2.0, 2.0, -2.0]).view(3, 1, 1))
    assert type(normalized) is Tensor


def test_no_long_bound_means_the_short_side_alone_decides():
    assert RandomShortSide((40,), math.inf)(torch.zeros(1, 10, 200)).shape == (1, 40, 800)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0, 800)}, "scale must bound"),
        ({"flip": 1.5}, "flip must be a probability"),
        ({"crop": -0.1}, "crop must be a probability"),
        ({"short_sides": []}, "short_sides must be lengths"),
        ({"short_sides": [480, 1400]}, r"short_sides \[480, 1400\] exceed the long bound of scale, 1333"),
        ({"crop_short_sides": (0, 4)}, "crop_short_sides must be lengths"),
        ({"crop_range": (600, 384)}, "crop_range must be two positive numbers"),
        ({"scale_jitter": (0.0, 2.0)}, "scale_jitter must be two positive numbers"),
        ({"scale_jitter": (0.1, 2.0), "crop": 0.5}, "takes the place of short_sides and crop"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DetectionTrainTransform(**options)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (30, 120)])
@pytest.mark.parametrize(
    "options", [{}, {"short_sides": [20, 40, 60]}, {"scale": (90, 90), "scale_jitter": (2.0, 2.0)}]
)
def test_no_image_gets_larger_than_is_said(size, options):
    transform = DetectionTrainTransform(**{"scale": (100, 60), **options})
    drawn = sizes(transform, *size)
    assert transform.largest_size(*size) == tuple(max(sides) for sides in zip(*drawn, strict=True))
