import colorsys

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import adjust_hue

from flatten_dense.data.transforms import (
    ClassBalancedCrop,
    EvalTransform,
    PhotometricDistortion,
    RandomRescale,
    SegmentationTrainTransform,
    resized_size,
)
from flatten_dense.structures import InputFormat, Normalization

PLAIN = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def coordinates(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose first two channels are row and column, and a mask that numbers the pixels."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).view(1, -1).expand(height, width)
    image = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    return image, (rows * width + columns).clone()


def geometry_only(**options) -> SegmentationTrainTransform:
    defaults = {"scale": None, "ratio_range": (1, 1), "flip": 0, "photometric": False, "normalization": PLAIN}
    return SegmentationTrainTransform(**{**defaults, **options})


def distort(image: torch.Tensor, seed: int, **options) -> torch.Tensor:
    neutral = {"brightness": 0, "contrast": (1, 1), "saturation": (1, 1), "hue": 0}
    torch.manual_seed(seed)
    return PhotometricDistortion(**{**neutral, **options})(tv_tensors.Image(image))


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((512, 683), (2048, 512), (512, 683)),
        ((360, 480), (320, 240), (240, 320)),
        ((480, 360), (320, 240), (320, 240)),
        ((100, 1000), (2048, 512), (205, 2048)),  # the long side binds: 204.8 and 2048
        ((3, 7), (10, 5), (4, 10)),  # 4.29 and 10
        ((30, 45), (20, 20), (13, 20)),  # 13.33 and 20
        ((1, 5000), (2048, 512), (1, 2048)),
        ((33, 77), None, (33, 77)),
    ],
)
def test_resized_size_fits_both_bounds(size, scale, expected):
    assert resized_size(*size, scale) == expected


@pytest.mark.parametrize(("scale", "size"), [((120, 60), (60, 80)), (None, (30, 40))])
def test_rescale_ratios_fill_their_range(scale, size):
    rescale = RandomRescale(scale, (0.5, 2.0))
    torch.manual_seed(0)
    heights = [rescale(tv_tensors.Image(torch.zeros(3, 30, 40, dtype=torch.uint8))).shape[1] for _ in range(200)]
    assert min(heights) >= size[0] * 0.5
    assert max(heights) <= size[0] * 2
    assert min(heights) < size[0] * 0.6
    assert max(heights) > size[0] * 1.9


def test_mask_takes_the_nearest_pixel_and_the_image_is_interpolated():
    image = torch.tensor([0, 200], dtype=torch.uint8).view(1, 1, 2).expand(3, 2, 2).contiguous()
    mask = torch.tensor([[3, 9], [9, 3]])
    resized, labels = geometry_only(ratio_range=(2, 2), crop_size=(4, 4))(image, mask)
    torch.testing.assert_close(labels, mask.repeat_interleave(2, 0).repeat_interleave(2, 1))
    torch.testing.assert_close(resized[0, 0] * 255, torch.tensor([0.0, 50.0, 150.0, 200.0]))


@pytest.mark.parametrize("flip", [0, 1])
def test_crop_and_flip_keep_image_and_mask_aligned(flip):
    image, mask = coordinates(13, 17)
    crop, labels = geometry_only(crop_size=(5, 6), flip=flip)(image, mask)
    rows, columns, _ = (crop * 255).round().long()
    torch.testing.assert_close(labels, rows * 17 + columns)
    step = -1 if flip else 1
    assert (columns.diff(dim=1) == step).all()
    assert (rows.diff(dim=0) == 1).all()


def test_crops_reach_every_corner():
    image, mask = coordinates(6, 7)
    transform = geometry_only(crop_size=(4, 4))
    torch.manual_seed(0)
    corners = {int(transform(image, mask)[1][0, 0]) for _ in range(200)}
    assert corners == {row * 7 + column for row in range(3) for column in range(4)}


def test_half_of_the_images_are_mirrored():
    image, mask = coordinates(4, 4)
    transform = geometry_only(crop_size=(4, 4), flip=0.5)
    torch.manual_seed(0)
    mirrored = sum(int(transform(image, mask)[1][0, 0]) == 3 for _ in range(400))
    assert 160 < mirrored < 240


def test_small_images_are_padded_at_the_right_and_bottom():
    image = torch.full((3, 3, 5), 255, dtype=torch.uint8)
    padded, labels = geometry_only(crop_size=(4, 7), normalization=Normalization())(image, torch.ones(3, 5).long())
    assert padded.shape == (3, 4, 7)
    assert labels.shape == (4, 7)
    assert (padded[:, :3, :5] > 0).all()
    assert (labels[:3, :5] == 1).all()
    outside = torch.ones(4, 7, dtype=torch.bool)
    outside[:3, :5] = False
    assert (padded[:, outside] == 0).all(), "padding is zero after normalisation"
    assert (labels[outside] == 255).all()


def test_padding_takes_the_ignore_index():
    labels = geometry_only(crop_size=(2, 2), ignore_index=99)(torch.zeros(3, 1, 1).byte(), torch.zeros(1, 1).long())[1]
    assert labels.tolist() == [[0, 99], [99, 99]]


def balanced_crops(mask: torch.Tensor, max_class_share: float) -> int:
    """How many of 60 crops of 10x10 lie at least in part beyond column 80."""
    crop = ClassBalancedCrop((10, 10), max_class_share, ignore_index=255)
    torch.manual_seed(0)
    pair = tv_tensors.Image(torch.zeros(3, *mask.shape)), tv_tensors.Mask(mask)
    return sum(crop(*pair)[1].unique().numel() > 1 for _ in range(60))


def test_crops_avoid_places_that_one_class_fills():
    mask = torch.zeros(10, 100, dtype=torch.int64)
    mask[:5, 80:] = 1
    mask[5:, 80:] = 2
    # A single try is balanced with probability 18/91, one of ten with 0.89.
    assert balanced_crops(mask, 0.75) > 45


def test_a_share_of_one_asks_for_a_second_class_only():
    mask = torch.zeros(10, 100, dtype=torch.int64)
    mask[:, 99] = 1
    # Only the last place holds both classes, the first with a share of 0.9.
    assert balanced_crops(mask, 1.0) > 2 * balanced_crops(mask, 0.75)


def test_ignored_pixels_count_for_no_class():
    mask = torch.zeros(10, 100, dtype=torch.int64)
    mask[:, 50:] = 255
    mask[0, 50:] = 1
    mask[1, 50:] = 2
    crop = ClassBalancedCrop((10, 10), 0.75, ignore_index=255)
    torch.manual_seed(0)
    pair = tv_tensors.Image(torch.zeros(3, 10, 100)), tv_tensors.Mask(mask)
    # Places from column 43 on are balanced among their labelled pixels, though 255 fills most of them.
    assert sum(255 in crop(*pair)[1] for _ in range(40)) == 40


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_of_one_value_still_gives_a_crop(value):
    crop = geometry_only(crop_size=(4, 4))(torch.zeros(3, 9, 9).byte(), torch.full((9, 9), value))[1]
    assert crop.tolist() == [[value] * 4] * 4


def test_brightness_adds_at_most_32_to_half_of_the_images():
    grey = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    values = [distort(grey, seed, brightness=32) for seed in range(200)]
    assert all((value == value[0, 0, 0]).all() for value in values)
    changes = [int(value[0, 0, 0]) - 100 for value in values]
    assert min(changes) in range(-33, -27)
    assert max(changes) in range(27, 33)
    assert 70 < sum(change == 0 for change in changes) < 130


def test_distorted_values_are_cut_off_not_wrapped():
    extremes = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2).expand(3, 1, 2).contiguous()
    for seed in range(20):
        low, high = distort(extremes, seed, brightness=32, contrast=(0.5, 1.5))[0, 0].tolist()
        assert low <= 48
        assert high >= 111


def test_contrast_multiplies_all_values():
    image = torch.tensor([40, 80, 120], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3).contiguous()
    factors = []
    for seed in range(200):
        low, middle, high = distort(image, seed, contrast=(0.5, 1.5))[0, 0].tolist()
        factors.append(high / 120)
        assert abs(middle - 2 * low) <= 2
        assert abs(high - 3 * low) <= 3
    assert 0.49 < min(factors) < 0.55
    assert 1.45 < max(factors) <= 1.5
    assert 70 < sum(factor == 1 for factor in factors) < 130


@pytest.mark.parametrize("factor", [0.5, 1.5])
@pytest.mark.parametrize("colour", [(200, 100, 50), (30, 220, 180), (90, 90, 90), (255, 0, 10)])
def test_saturation_scales_s_of_hsv(colour, factor):
    image = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    expected = torch.tensor(colorsys.hsv_to_rgb(hue, min(1, saturation * factor), value)) * 255
    results = [distort(image, seed, saturation=(factor, factor)).flatten().float() for seed in range(20)]
    assert any((result - expected).abs().max() <= 1.01 for result in results)
    assert all(
        min((result - expected).abs().max(), (result - image.flatten()).abs().max()) <= 1.01 for result in results
    )


def test_hue_turns_at_most_36_degrees():
    image = torch.tensor((200, 60, 100), dtype=torch.uint8).view(3, 1, 1)
    before = colorsys.rgb_to_hsv(200, 60, 100)
    turns = []
    for seed in range(100):
        after = colorsys.rgb_to_hsv(*distort(image, seed, hue=36).flatten().tolist())
        turns.append(((after[0] - before[0] + 0.5) % 1 - 0.5) * 360)
        assert abs(after[2] - before[2]) <= 1
    assert -37 < min(turns) < -30
    assert 30 < max(turns) < 37


@pytest.mark.parametrize("degrees", [-400, -36, -20.5, 0, 7, 36, 100])
def test_hue_turns_as_torchvision_turns_it(degrees):
    every_32nd = torch.arange(0, 257, 32).clamp(max=255).to(torch.uint8)
    image = torch.cartesian_prod(every_32nd, every_32nd, every_32nd).T.reshape(3, 27, 27)
    expected = adjust_hue(image, ((degrees + 180) % 360 - 180) / 360)
    turned = PhotometricDistortion().transform(tv_tensors.Image(image), {"hue": degrees, "contrast_last": False})
    assert (turned.int() - expected.int()).abs().max() <= 1  # torchvision rounds down


def test_contrast_comes_first_or_last():
    # With full desaturation cut off at 255 the two orders differ.
    image = torch.tensor((250, 100, 100), dtype=torch.uint8).view(3, 1, 1)
    results = {
        tuple(distort(image, s, contrast=(1.5, 1.5), saturation=(0.5, 0.5)).flatten().tolist()) for s in range(64)
    }
    first = (255, 202, 202)  # (250, 100, 100) * 1.5 -> (255, 150, 150), then half as saturated
    last = (255, 255, 255)  # (250, 175, 175) * 1.5
    assert {first, last} <= results


def test_distortion_leaves_the_mask():
    image, mask = coordinates(8, 8)
    for seed in range(10):
        torch.manual_seed(seed)
        labels = geometry_only(crop_size=(8, 8), photometric=True)(image, mask)[1]
        torch.testing.assert_close(labels, mask)


def test_images_are_normalised_by_the_given_numbers():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1)
    normalization = Normalization((0.1, 0.2, 0.3), (0.5, 0.25, 0.1))
    expected = torch.tensor([-0.2, 0.0, 7.0]).view(3, 1, 1)
    trained = geometry_only(crop_size=(1, 1), normalization=normalization)(image, torch.zeros(1, 1).long())[0]
    torch.testing.assert_close(trained, expected)
    torch.testing.assert_close(EvalTransform(InputFormat(None, normalization))(image), expected)


def test_the_order_of_channels_in_memory_does_not_matter():
    image = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8)
    interleaved = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    transform, mask = SegmentationTrainTransform(crop_size=(20, 20), scale=None), torch.arange(1200).view(30, 40)
    results = []
    for photo in (image, interleaved):
        torch.manual_seed(0)
        results.append(transform(photo, mask))
        assert results[-1][0].is_contiguous()
        assert EvalTransform(InputFormat((60, 50)))(photo).is_contiguous()
    torch.testing.assert_close(*results)


def test_results_are_plain_tensors():
    image, mask = coordinates(9, 9)
    trained, labels = SegmentationTrainTransform(crop_size=(8, 8))(image, mask)
    evaluated = EvalTransform(InputFormat((2048, 512)))(image)
    assert {type(trained), type(labels), type(evaluated)} == {torch.Tensor}
    assert (trained.dtype, labels.dtype, evaluated.dtype) == (torch.float32, torch.int64, torch.float32)


def test_the_seed_of_torch_decides_everything():
    image, mask = coordinates(15, 15)
    transform = SegmentationTrainTransform(crop_size=(8, 8), scale=None)

    def run(seed):
        torch.manual_seed(seed)
        return transform(image, mask)

    torch.testing.assert_close(run(3), run(3))
    assert not torch.equal(run(3)[0], run(4)[0])


@pytest.mark.parametrize(("scale", "expected"), [((40, 20), (20, 27)), (None, (30, 40))])
def test_evaluation_images_take_the_scale(scale, expected):
    image = torch.full((3, 30, 40), 128, dtype=torch.uint8)
    assert EvalTransform(InputFormat(scale))(image).shape == (3, *expected)


def test_shrinking_averages_instead_of_skipping_pixels():
    # Of every four pixels, bilinear sampling at a quarter of the size would see the two in the middle.
    stripes = torch.tensor([255, 0, 0, 255], dtype=torch.uint8).repeat(16).view(1, 1, 64).expand(3, 64, 64).contiguous()
    small = EvalTransform(InputFormat((16, 16), PLAIN))(stripes)
    assert (small - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scale": (0, 512)}, "scale"),
        ({"ratio_range": (2.0, 0.5)}, "ratio_range"),
        ({"ratio_range": (0.0, 1.0)}, "ratio_range"),
        ({"crop_size": (0, 4)}, "crop_size"),
        ({"max_class_share": 0}, "max_class_share"),
        ({"flip": 1.5}, "flip"),
    ],
)
def test_options_out_of_range_are_refused(options, name):
    with pytest.raises(ValueError, match=name):
        SegmentationTrainTransform(**options)


@pytest.mark.parametrize("side", [(48, 64), (64, 48), (40, 61)])
def test_the_short_side_preset_is_torchvisions(side):
    photo = torch.randint(0, 256, (3, *side), dtype=torch.uint8)
    expected = v2.functional.center_crop(v2.functional.resize(photo, 36, v2.InterpolationMode.BICUBIC), [28, 28])
    preset = InputFormat((36, 36), PLAIN, "short_side", (28, 28), "bicubic")
    torch.testing.assert_close(EvalTransform(preset)(photo), expected / 255)


def test_the_squash_preset_does_not_keep_the_aspect_ratio():
    photo = torch.zeros(3, 40, 80, dtype=torch.uint8)
    photo[:, :, 40:] = 255
    squashed = EvalTransform(InputFormat((32, 32), PLAIN, "squash", (28, 28), "bicubic"))(photo)
    assert squashed.shape == (3, 28, 28)
    assert squashed[:, :, :10].max() < 0.1  # the edge lies in the middle still
    assert squashed[:, :, 18:].min() > 0.9


@pytest.mark.parametrize("resize", ["squash", "short_side"])
def test_a_crop_beyond_the_resized_image_is_refused(resize):
    EvalTransform(InputFormat((64, 64), resize=resize, crop=(64, 64)))
    with pytest.raises(ValueError, match=r"crop \[65, 64\] reaches beyond images resized to \[64, 64\]"):
        EvalTransform(InputFormat((64, 64), resize=resize, crop=(65, 64)))
