"""What inference does piece by piece and in place equals what training computes, in every family."""

import pytest
import timm
import torch

from flatten_dense.layers import streaming


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(streaming, "PIECE_ON_CPU", 2000)
    monkeypatch.setattr(streaming, "PIECE_PER_THREAD", 0)


@pytest.mark.parametrize("size", [(97, 65), (64, 64), (33, 150)])
def test_inference_equals_the_differentiable_form(micro, attention, randomise, size):
    model = randomise(timm.create_model(micro, num_classes=5, **attention)).double().eval()
    images = torch.randn(2, 3, *size).double()
    before = images.clone()
    expected_last, expected = model.forward_intermediates(images)
    with torch.inference_mode():
        last, maps = model.forward_intermediates(images)
    for out, truth in zip([last, *maps], [expected_last, *expected], strict=True):
        torch.testing.assert_close(out, truth, rtol=0, atol=1e-10)
    assert torch.equal(images, before)


def test_padded_batches_too(micro, attention, randomise):
    model = randomise(timm.create_model(micro, num_classes=5, **attention)).double().eval()
    images, sizes = torch.randn(2, 3, 97, 80).double(), [(97, 50), (64, 80)]
    expected = model.forward_intermediates(images, image_sizes=sizes, intermediates_only=True)
    with torch.no_grad():
        maps = model.forward_intermediates(images, image_sizes=sizes, intermediates_only=True)
    for out, truth in zip(maps, expected, strict=True):
        torch.testing.assert_close(out, truth, rtol=0, atol=1e-10)
