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


@pytest.mark.parametrize("autocast", [False, True])
def test_defaults_of_the_program_change_nothing(micro, autocast):
    """The kernels see addresses, so nothing that they get may follow a default type or device."""
    options = {"embed_dim": 96} if "pvt" not in micro else {"embed_dims": (32, 64, 96, 128)}
    model = timm.create_model(micro, num_classes=5, **options).eval()
    images = torch.randn(1, 3, 70, 64)
    outs = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outs.append(model(images))
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                outs.append(model(images))
        finally:
            torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(*outs, rtol=0, atol=0)
