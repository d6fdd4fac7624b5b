import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.backbones import TimmBackbone
from flatten_dense.necks import SimplePyramid


def layer_norm(x: Tensor) -> Tensor:
    """Over the channels of each pixel, as it starts."""
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()


@pytest.mark.parametrize(
    ("stride", "options", "strides"),
    [
        (16, {}, (4, 8, 16, 32)),
        (8, {"doublings": 1, "halvings": 2}, (4, 8, 16, 32)),
        (14, {"doublings": 1}, (7, 14, 28)),
        (32, {"doublings": 3, "halvings": 0}, (4, 8, 16, 32)),
        (16, {"doublings": 0, "halvings": 0}, (16,)),
    ],
)
def test_levels_have_the_announced_strides(stride: int, options: dict, strides: tuple[int, ...]) -> None:
    neck = SimplePyramid([8], [stride], out_channels=6, **options)
    maps = neck([torch.randn(1, 8, 8, 12)])
    assert neck.strides == strides
    assert neck.channels == (6,) * len(strides)
    assert [tuple(x.shape) for x in maps] == [(1, 6, 8 * stride // s, 12 * stride // s) for s in strides]


@pytest.mark.parametrize(("height", "width"), [(7, 5), (1, 1), (1, 9)])
def test_maps_of_odd_size_are_rounded_up(height: int, width: int) -> None:
    sizes = [tuple(x.shape[-2:]) for x in SimplePyramid([8], [16], 6)([torch.randn(1, 8, height, width)])]
    half = (-(-height // 2), -(-width // 2))
    assert sizes == [(4 * height, 4 * width), (2 * height, 2 * width), (height, width), half]


def test_equals_the_steps_of_vitdet() -> None:
    torch.manual_seed(0)
    neck, x = SimplePyramid([8], [16], out_channels=6), torch.randn(2, 8, 4, 6)

    def doubled(x: Tensor, layer: nn.ConvTranspose2d) -> Tensor:
        """Every pixel becomes a 2x2 block of its own."""
        blocks = torch.einsum("bchw,cdij->bdhiwj", x, layer.weight)
        return blocks.reshape(x.shape[0], -1, 2 * x.shape[2], 2 * x.shape[3]) + layer.bias.view(1, -1, 1, 1)

    def finished(x: Tensor, level: nn.Sequential) -> Tensor:
        first, second = (module for module in level if type(module) is nn.Conv2d)
        return layer_norm(F.conv2d(layer_norm(F.conv2d(x, first.weight)), second.weight, padding=1))

    finest, fine, same, coarse = neck.levels
    expected = [
        finished(doubled(F.gelu(layer_norm(doubled(x, finest[0]))), finest[3]), finest),
        finished(doubled(x, fine[0]), fine),
        finished(x, same),
        finished(F.max_pool2d(x, 2), coarse),
    ]
    for level, (ours, theirs) in enumerate(zip(neck([x]), expected, strict=True)):
        torch.testing.assert_close(ours, theirs, msg=lambda text, level=level: f"level {level}: {text}")


def test_every_parameter_gets_a_gradient() -> None:
    neck = SimplePyramid([8], [16], out_channels=6)
    weights = torch.randn(6, 1, 1)
    sum((x * weights).sum() for x in neck([torch.randn(1, 8, 3, 5)])).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_a_stride_that_cannot_be_halved_so_often_names_what_can() -> None:
    with pytest.raises(ValueError, match="halving 14 2 times: set doublings to at most 1"):
        SimplePyramid([8], [14])


def test_several_maps_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"one map, got .*strides=\(16, 16\): .*out_indices \[-1\].*FPN"):
        SimplePyramid([8, 8], [16, 16])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"doublings": -1}, "at least 0, got -1 and 1"), ({"doublings": 4}, "halves 8 channels 4 times")],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimplePyramid([8], [16], **options)


def test_a_plain_transformer_of_timm_takes_any_size() -> None:
    options = {"depth": 2, "embed_dim": 24, "num_heads": 2}
    backbone = TimmBackbone("vit_tiny_patch16_224", out_indices=(-1,), options=options)
    neck = SimplePyramid(backbone.channels, backbone.strides, out_channels=8)
    assert neck.strides == (4, 8, 16, 32)
    sizes = [tuple(x.shape[-2:]) for x in neck(backbone(torch.randn(1, 3, 50, 70)))]
    assert sizes == [(16, 20), (8, 10), (4, 5), (2, 3)]


def test_an_image_gets_in_a_padded_batch_what_it_gets_alone():
    torch.manual_seed(0)
    pyramid = SimplePyramid((32,), (16,), out_channels=8, doublings=2, halvings=2)
    for parameter in pyramid.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    sizes = [(97, 64), (64, 150), (128, 128)]
    batch = torch.zeros(3, 32, 8, 10)
    alone = [torch.randn(1, 32, -(-height // 16), -(-width // 16)) for height, width in sizes]
    for whole, part in zip(batch, alone, strict=True):
        whole[:, : part.shape[2], : part.shape[3]] = part[0]
    together = pyramid([batch], sizes)
    for i, (part, size) in enumerate(zip(alone, sizes, strict=True)):
        for whole, own, stride in zip(together, pyramid([part], [size]), pyramid.strides, strict=True):
            inside = whole[i : i + 1, :, : own.shape[2], : own.shape[3]]
            torch.testing.assert_close(inside, own, rtol=1e-4, atol=1e-4)
            assert whole[i].count_nonzero() == inside.count_nonzero()
            assert own[0, :, -(-size[0] // stride) :].count_nonzero() == 0


def test_padding_leaves_all_gradients_finite():
    pyramid = SimplePyramid((32,), (16,), out_channels=8, halvings=2)
    maps = pyramid([torch.randn(2, 32, 8, 8)], [(128, 128), (40, 128)])
    torch.stack([x.square().sum() for x in maps]).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in pyramid.parameters())
