import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.inference import segment, segment_batch, whole_image_logits


def model(num_classes: int = 5) -> nn.Module:
    """Logits at a quarter of the input's size, odd sizes rounded up."""
    torch.manual_seed(0)
    return nn.Conv2d(3, num_classes, 5, stride=4, padding=2).eval()


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=generator) for size in sizes]


def bilinear(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def test_logits_are_resized_to_the_input_and_then_to_the_original_size() -> None:
    (image,) = images((21, 34))
    expected = bilinear(bilinear(model()(image[None]), (21, 34)), (50, 40))[0]
    torch.testing.assert_close(whole_image_logits(model(), image, (50, 40)), expected)


@torch.no_grad()
def test_logits_of_a_batch_keep_their_batch_dimension() -> None:
    batch = torch.stack(images((16, 16), (16, 16)))
    logits = whole_image_logits(model(), batch, (20, 24))
    assert logits.shape == (2, 5, 20, 24)
    torch.testing.assert_close(logits[1], whole_image_logits(model(), batch[1], (20, 24)))


@pytest.mark.parametrize("size", [(21, 34), (50, 40), (9, 13)])
@pytest.mark.parametrize("num_classes", [1, 5, 16, 17, 40])
def test_mask_is_the_argmax_of_the_whole_image_logits(num_classes: int, size: tuple[int, int]) -> None:
    (image,) = images((21, 34))
    mask = segment(model(num_classes), image, size)
    assert mask.dtype == torch.int64
    assert torch.equal(mask, whole_image_logits(model(num_classes), image, size).argmax(0))


def test_equal_logits_give_the_first_class() -> None:
    mask = segment(lambda x: torch.zeros(len(x), 40, 2, 2), torch.zeros(3, 8, 8), (8, 8))
    assert mask.unique().tolist() == [0]


def test_masks_do_not_depend_on_what_an_image_was_batched_with() -> None:
    batch = images((24, 32), (32, 24), (24, 32), (17, 9))
    sizes = [(48, 64), (32, 24), (30, 40), (17, 9)]
    together = segment_batch(model(), batch, sizes)
    for mask, image, size in zip(together, batch, sizes, strict=True):
        assert torch.equal(mask, segment(model(), image, size))


def test_images_of_equal_size_share_a_forward_pass_and_nothing_is_padded() -> None:
    seen = []

    def predict(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return model()(x)

    batch = images((24, 32), (32, 24), (24, 32))
    segment_batch(predict, batch, [(24, 32), (32, 24), (24, 32)])
    assert sorted(seen) == [(1, 3, 32, 24), (2, 3, 24, 32)]


def test_half_precision_logits_are_resized_in_float32() -> None:
    # bfloat16 has nothing between 256 and 258, so class 1 would tie with class 0 wherever it is below 257.
    logits = torch.tensor([[[[256.0, 256.0]], [[256.0, 258.0]]]], dtype=torch.bfloat16)
    mask = segment(lambda x: logits, torch.zeros(3, 1, 8), (1, 8))
    assert mask.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1]]


def test_segmenting_keeps_no_graph() -> None:
    seen = []

    def predict(x: Tensor) -> Tensor:
        seen.append(model()(x))
        return seen[-1]

    segment(predict, images((8, 8))[0], (8, 8))
    assert not seen[0].requires_grad


def test_a_size_for_every_image_is_asked_for() -> None:
    with pytest.raises(ValueError, match="2 images but 1 original sizes"):
        segment_batch(model(), images((8, 8), (8, 8)), [(8, 8)])
