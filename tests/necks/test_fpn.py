import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.necks import FPN


def pyramid(channels: tuple[int, ...], height: int, width: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, c, -(-height // 2**i), -(-width // 2**i)) for i, c in enumerate(channels)]


def test_parameter_count_of_the_paper() -> None:
    assert sum(p.numel() for p in FPN((64, 128, 320, 512), (4, 8, 16, 32)).parameters()) == 2_623_488


def test_announces_channels_and_strides_of_its_outputs() -> None:
    neck = FPN([4, 6, 8], [4, 8, 16], out_channels=5)
    assert neck.channels == (5, 5, 5)
    assert neck.strides == (4, 8, 16)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (13, 7), (1, 1)])
def test_keeps_the_size_of_every_map(height: int, width: int) -> None:
    features = pyramid((4, 6, 8), height, width)
    sizes = [tuple(x.shape) for x in FPN((4, 6, 8), (4, 8, 16), 5)(features)]
    assert sizes == [(1, 5, *x.shape[-2:]) for x in features]


def test_equals_laterals_summed_top_down_by_nearest_neighbours() -> None:
    neck = FPN((4, 6), (4, 8), 5)
    fine, coarse = pyramid((4, 6), 5, 6)
    lateral_fine, lateral_coarse = (layer(x) for layer, x in zip(neck.laterals, (fine, coarse), strict=True))
    rows = torch.tensor([int(y * 3 / 5) for y in range(5)])
    columns = torch.tensor([x // 2 for x in range(6)])
    merged = lateral_fine + lateral_coarse[:, :, rows][:, :, :, columns]
    outputs = neck([fine, coarse])
    for output, layer, x in zip(outputs, neck.outputs, (merged, lateral_coarse), strict=True):
        assert isinstance(layer, nn.Conv2d)
        torch.testing.assert_close(output, F.conv2d(x, layer.weight, layer.bias, padding=1))


def test_starts_xavier_uniform_with_zero_biases() -> None:
    torch.manual_seed(0)
    neck = FPN((64, 128), (4, 8))
    for conv in (module for module in neck.modules() if isinstance(module, nn.Conv2d)):
        fan = conv.weight[0].numel() + conv.weight[:, 0].numel()
        bound = (6 / fan) ** 0.5
        assert 0.99 * bound < conv.weight.abs().max() <= bound
        assert conv.bias is not None
        assert conv.bias.abs().max() == 0


def test_does_not_change_the_maps_it_is_given() -> None:
    features = pyramid((4, 6), 8, 8)
    before = [x.clone() for x in features]
    FPN((4, 6), (4, 8), 5)(features)
    assert all(torch.equal(x, y) for x, y in zip(features, before, strict=True))


def test_a_stride_for_every_level_is_asked_for() -> None:
    with pytest.raises(ValueError, match="one stride per level"):
        FPN((4, 6), (4,))


SIZES = [(97, 64), (64, 150), (128, 128)]


@pytest.fixture
def padded():
    """Maps of a padded batch, zero outside the images' own parts, and those of each image alone."""
    generator = torch.Generator().manual_seed(0)
    batch = [torch.zeros(3, 4 * s, -(-128 // s), -(-150 // s)) for s in (4, 8, 16, 32)]
    alone = []
    for i, (height, width) in enumerate(SIZES):
        own = [torch.randn(1, 4 * s, -(-height // s), -(-width // s), generator=generator) for s in (4, 8, 16, 32)]
        for whole, part in zip(batch, own, strict=True):
            whole[i, :, : part.shape[2], : part.shape[3]] = part[0]
        alone.append(own)
    return batch, alone


def make_fpn(**options):
    torch.manual_seed(0)
    fpn = FPN((16, 32, 64, 128), (4, 8, 16, 32), out_channels=8, **options)
    for parameter in fpn.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    return fpn


@pytest.mark.parametrize(
    "options",
    [
        {"extra_levels": 1},
        {"start_level": 1, "extra_levels": 2, "extra": "conv_input"},
        {"start_level": 1, "extra_levels": 2, "extra": "conv_output"},
        {"extra_levels": 3, "extra": "conv_output_relu"},
    ],
)
def test_an_image_gets_in_a_padded_batch_what_it_gets_alone(padded, options):
    batch, alone = padded
    fpn = make_fpn(**options)
    together = fpn(batch, SIZES)
    for i, own in enumerate(alone):
        for whole, part in zip(together, fpn(own), strict=True):
            inside = whole[i : i + 1, :, : part.shape[2], : part.shape[3]]
            torch.testing.assert_close(inside, part, rtol=1e-4, atol=1e-4)
            assert whole[i].count_nonzero() == inside.count_nonzero()


def test_a_pooled_level_takes_every_second_cell(padded):
    batch, _ = padded
    *_, last, extra = make_fpn(extra_levels=1)(batch)
    assert torch.equal(extra, last[:, :, ::2, ::2])


@pytest.mark.parametrize(("extra", "channels"), [("conv_input", 128), ("conv_output", 8), ("conv_output_relu", 8)])
def test_what_the_first_extra_convolution_reads(extra, channels):
    assert [conv.in_channels for conv in make_fpn(extra_levels=2, extra=extra).extras] == [channels, 8]


def test_only_torchvisions_has_a_relu_between_extra_levels(padded):
    batch, _ = padded
    plain, relu = make_fpn(extra_levels=2, extra="conv_output"), make_fpn(extra_levels=2, extra="conv_output_relu")
    (*_, p6, p7), (*_, q6, q7) = plain(batch), relu(batch)
    assert torch.equal(p6, q6)
    assert not torch.equal(p7, q7)
    torch.testing.assert_close(q7, relu.extras[1](p6.relu()))


def test_strides_of_all_levels():
    assert make_fpn(start_level=1, extra_levels=2).strides == (8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_level": 4}, r"start_level must be one of 0\.\.3, got 4"),
        ({"extra_levels": -1}, "extra_levels must be at least 0"),
        ({"extra": "max"}, "extra must be one of pool, conv_input"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_fpn(**options)
