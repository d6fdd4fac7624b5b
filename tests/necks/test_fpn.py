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
