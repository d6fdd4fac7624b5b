from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.backbones import TimmBackbone
from flatten_dense.inference import Inference, TensorImage, segment_batch
from flatten_dense.inference.options import shared_pixels
from flatten_dense.inference.rows import resize_rows
from flatten_dense.inference.tiles import tile_spans, tiled_rows


class Upsampled(nn.Module):
    """A stride-32 map doubled three times, as heads over pyramids do: logits of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(3, 4, 45, stride=32, padding=20)
        self.fine = nn.Conv2d(3, 4, 7, stride=4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return (
            fine + F.interpolate(self.coarse(x), scale_factor=8, mode="bilinear")[..., : fine.shape[2], : fine.shape[3]]
        )


def conv(kernel: int, stride: int) -> nn.Module:
    return nn.Conv2d(3, 4, kernel, stride=stride, padding=(kernel - 1) // 2)


# Model and its receptive field in pixels: of each logit, all that it may look at.
MODELS = {
    "stride 1": (lambda: nn.Sequential(conv(3, 1), nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2)), 7),
    "stride 4": (lambda: nn.Sequential(conv(7, 4), nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2)), 23),
    "stride 32": (lambda: conv(81, 32), 81),
    # Made for sides that 4 divides: only then are its logits half as many as pixels.
    "transposed": (lambda: nn.Sequential(conv(9, 4), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, stride=2)), 9),
    "pyramid": (Upsampled, 45 + 2 * 32),
}


def build(name: str) -> tuple[nn.Module, int]:
    make, receptive_field = MODELS[name]
    torch.manual_seed(0)
    return make().eval(), receptive_field


def photo(height: int, width: int) -> Tensor:
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def tiled_logits(model: nn.Module, image: Tensor, tile_size: int, overlap: int) -> Tensor:
    rows = tiled_rows(model, TensorImage(image), tile_size, overlap)
    logits = torch.cat(list(rows.strips)).transpose(0, 1)
    assert logits.shape[-2:] == rows.size
    return logits


@torch.no_grad()
@pytest.mark.parametrize("size", [(500, 331), (160, 777), (777, 160), (96, 600)])
@pytest.mark.parametrize("name", MODELS)
def test_tiles_change_nothing_where_the_overlap_covers_the_receptive_field(name, size):
    model, receptive_field = build(name)
    tile_size = shared_pixels(receptive_field) + 64
    if max(size) <= tile_size:
        pytest.skip("one tile")
    image = photo(*((side - side % 4 for side in size) if name == "transposed" else size))
    whole = model(image[None])[0]
    torch.testing.assert_close(tiled_logits(model, image, tile_size, receptive_field), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_less_overlap_than_the_receptive_field_shows():
    model, _ = build("stride 32")
    image = photo(500, 331)
    error = (tiled_logits(model, image, 192, 32) - model(image[None])[0]).abs().max()
    assert error > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("name", ["stride 4", "pyramid"])
def test_strips_resized_are_the_whole_resized(name):
    model, receptive_field = build(name)
    image = photo(500, 331)
    rows = tiled_rows(model, TensorImage(image), shared_pixels(receptive_field) + 32, receptive_field)
    strips = torch.cat(list(resize_rows(resize_rows(rows, (500, 331)), (611, 402)).strips)).transpose(0, 1)
    whole = F.interpolate(model(image[None]), size=(500, 331), mode="bilinear")
    whole = F.interpolate(whole, size=(611, 402), mode="bilinear")[0]
    # F.interpolate computes positions in float32, which rows do in float64: 1e-5 of a logit of about 1.
    torch.testing.assert_close(strips, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_tile_as_large_as_the_image_is_the_whole_image(name):
    model, _ = build(name)
    image = photo(95, 128)
    whole, tiled = (
        segment_batch(model, [image], [(190, 255)], Inference(mode=mode, tile_size=128, overlap=0))[0]
        for mode in ("whole", "tiled")
    )
    assert torch.equal(whole, tiled)


@pytest.mark.parametrize("overlap", [0, 16, 64, 100])
@pytest.mark.parametrize("length", [257, 288, 320, 333, 1000, 5001])
def test_spans_cover_a_side_and_share_enough(length, overlap):
    spans = tile_spans(length, 256, overlap)
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(start % 32 == 0 and stop - start <= 256 for start, stop in spans)
    shares = [stop - start for (_, stop), (start, _) in pairwise(spans)]
    assert min(shares) >= shared_pixels(overlap)
    fewest = -(-(length - 256) // (256 - shared_pixels(overlap))) + 1
    assert len(spans) <= fewest + 1


def test_a_short_side_is_one_span():
    assert tile_spans(100, 256, 64) == [(0, 100)]


@torch.no_grad()
def test_blending_weights_sum_to_one():
    constant = tiled_logits(
        lambda x: torch.ones(1, 2, -(-x.shape[2] // 4), -(-x.shape[3] // 4)), photo(401, 333), 192, 64
    )
    torch.testing.assert_close(constant, torch.ones(2, 101, 84), atol=1e-6, rtol=0)


@torch.no_grad()
def test_from_tile_to_tile_logits_change_gradually():
    values = iter([0.0, 1.0])

    def predict(x: Tensor) -> Tensor:
        return torch.full((1, 1, -(-x.shape[2] // 4), -(-x.shape[3] // 4)), next(values))

    row = tiled_logits(predict, photo(64, 416), 256, 32)[0, 0]
    assert (row[0], row[-1]) == (0, 1)
    steps = row.diff()
    assert steps.min() >= 0
    assert steps.max() <= 4 / (shared_pixels(32) - 32 - 4) + 1e-6


@torch.no_grad()
def test_tiles_of_a_flatten_model_leave_no_seams():
    torch.manual_seed(0)
    backbone = TimmBackbone("flatten_pvt_test").eval()
    image = photo(384, 384)

    def predict(x: Tensor) -> Tensor:
        return backbone(x)[0]

    def seam(overlap: int) -> float:
        """Largest mean step between columns of what tiles changed, relative to the usual one."""
        logits = tiled_logits(predict, image, 192, overlap)
        assert logits.isfinite().all()
        steps = (logits - predict(image[None])[0]).diff(dim=2).abs().mean((0, 1))
        return float(steps.max() / steps.median())

    assert seam(64) < 1.6
    assert seam(0) > 2.2


@torch.no_grad()
def test_logits_of_an_unusual_size_are_resized_to_their_tile():
    model = nn.Conv2d(3, 2, 5, stride=3)
    logits = tiled_logits(model, photo(200, 300), 128, 16)
    assert logits.shape == (2, 200, 300)
