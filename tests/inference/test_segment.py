import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.inference import Inference, TensorImage, segment_batch, segment_strips


def model(num_classes: int = 5) -> nn.Module:
    """Logits at a quarter of the input's size, odd sizes rounded up."""
    torch.manual_seed(0)
    return nn.Conv2d(3, num_classes, 5, stride=4, padding=2).eval()


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=generator) for size in sizes]


def bilinear(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def segment(predict, image: Tensor, size: tuple[int, int], **options) -> Tensor:
    return segment_batch(predict, [image], [size], Inference(**options))[0]


@torch.no_grad()
@pytest.mark.parametrize("size", [(21, 34), (50, 40), (9, 13)])
@pytest.mark.parametrize("num_classes", [1, 5, 40])
def test_logits_are_resized_to_the_input_and_then_to_the_original_size(num_classes, size):
    (image,) = images((21, 34))
    expected = bilinear(bilinear(model(num_classes)(image[None]), (21, 34)), size)[0].argmax(0)
    mask = segment(model(num_classes), image, size)
    assert mask.dtype == torch.int64
    assert torch.equal(mask, expected)


def test_equal_logits_give_the_first_class():
    mask = segment(lambda x: torch.zeros(len(x), 40, 2, 2), torch.zeros(3, 8, 8), (8, 8))
    assert mask.unique().tolist() == [0]


def test_masks_do_not_depend_on_what_an_image_was_batched_with():
    batch = images((24, 32), (32, 24), (24, 32), (17, 9))
    sizes = [(48, 64), (32, 24), (30, 40), (17, 9)]
    together = segment_batch(model(), batch, sizes)
    for mask, image, size in zip(together, batch, sizes, strict=True):
        assert torch.equal(mask, segment(model(), image, size))


def test_images_of_equal_size_share_a_forward_pass_and_nothing_is_padded():
    seen = []

    def predict(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return model()(x)

    segment_batch(predict, images((24, 32), (32, 24), (24, 32)), [(24, 32), (32, 24), (24, 32)])
    assert sorted(seen) == [(1, 3, 32, 24), (2, 3, 24, 32)]


def test_half_precision_logits_are_resized_in_float32():
    # bfloat16 has nothing between 256 and 258, so class 1 would tie with class 0 wherever it is below 257.
    logits = torch.tensor([[[[256.0, 256.0]], [[256.0, 258.0]]]], dtype=torch.bfloat16)
    mask = segment(lambda x: logits, torch.zeros(3, 1, 8), (1, 8))
    assert mask.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("mode", ["whole", "slide", "tiled"])
def test_segmenting_keeps_no_graph(mode):
    seen = []

    def predict(x: Tensor) -> Tensor:
        seen.append(model()(x))
        return seen[-1]

    segment(predict, images((40, 200))[0], (40, 200), mode=mode, tile_size=128, overlap=0, window=64, stride=64)
    assert not any(logits.requires_grad for logits in seen)


def test_a_size_for_every_image_is_asked_for():
    with pytest.raises(ValueError, match="2 images but 1 original sizes"):
        segment_batch(model(), images((8, 8), (8, 8)), [(8, 8)])


def test_only_images_above_the_limit_are_tiled_in_auto_mode():
    seen = []

    def predict(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return model()(x)

    options = Inference(max_pixels=160 * 160, tile_size=128, overlap=0)
    segment_batch(predict, images((160, 160), (161, 160)), [(160, 160), (161, 160)], options)
    assert seen.count((1, 3, 160, 160)) == 1
    assert max(height for _, _, height, _ in seen if height != 160) == 128
    assert len(seen) == 5


def test_strips_of_a_tiled_image_come_while_the_model_runs():
    calls = []

    def predict(x: Tensor) -> Tensor:
        calls.append(x.shape)
        return model(150)(x)

    (image,) = images((400, 128))
    options = Inference(mode="tiled", tile_size=128, overlap=0)
    strips = segment_strips(predict, TensorImage(image), (1000, 320), options)
    assert next(strips).shape[1] == 320
    assert len(calls) <= 2
    assert sum(len(strip) for strip in strips) < 1000
    assert len(calls) == 4


@torch.no_grad()
@pytest.mark.parametrize("mode", ["whole", "slide", "tiled"])
def test_augmentation_averages_softmaxes_at_the_original_size(mode):
    (image,) = images((90, 141))
    size = (70, 100)
    expected = torch.zeros(5, *size)
    for height, width in ((45, 70), (90, 141), (158, 247)):
        resized = F.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)
        if (height, width) == (90, 141):
            resized = image[None]
        for mirrored in (False, True):
            logits = model()(resized.flip(-1) if mirrored else resized)
            logits = bilinear(bilinear(logits, (height, width)), size)
            expected += (logits.flip(-1) if mirrored else logits).softmax(1)[0]
    options = {"tile_size": 160, "overlap": 32, "window": 256, "stride": 256}
    mask = segment(model(), image, size, mode=mode, scales=(0.5, 1.0, 1.75), flip=True, **options)
    assert (mask == expected.argmax(0)).float().mean() > 0.999


def test_a_mirrored_pass_makes_a_left_handed_model_even_handed():
    def predict(x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, x.shape[-1]).expand(1, 1, *x.shape[-2:])
        return torch.cat([ramp, 0.4 * torch.ones_like(ramp)], 1)  # class 0 in the right part

    image = torch.zeros(3, 4, 100)
    plain, mirrored = (segment(predict, image, (4, 100), flip=flip)[0] for flip in (False, True))
    assert plain.tolist() == [1] * 40 + [0] * 60
    assert torch.equal(mirrored, mirrored.flip(0))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mode": "slide", "window": 40, "stride": 40}, "inference.window 40 gives the model images of 40x40 pixels"),
        ({"mode": "tiled", "tile_size": 32, "overlap": 0}, "inference.tile_size 32 .* 32x32 pixels"),
        ({"mode": "whole", "scales": (1.0, 0.25)}, "inference.scales 0.25 .* 32x24 pixels"),
    ],
)
def test_a_size_that_the_model_refuses_names_the_option_behind_it(options, complaint):
    def particular(batch: Tensor) -> Tensor:
        if min(batch.shape[-2:]) < 64:
            raise ValueError("at least 64 pixels, please")
        return batch

    with pytest.raises(ValueError, match=f"{complaint}: at least 64 pixels, please"):
        segment(particular, *images((96, 128)), (96, 128), **options)
