import pytest
import torch
import torch.nn.functional as F

from flatten_dense.layers import TokenGrid, as_size, ceil_div


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (224, (224, 224)),
        ([64, 96], (64, 96)),
        ((64, 96), (64, 96)),
        (0, None),
        (True, None),
        ("224", None),
        (None, None),
    ],
)
def test_sizes(value, size):
    assert as_size(value) == size


def test_ceil_div_keeps_partial_cells():
    assert ceil_div((97, 64), 4) == (25, 16)


def test_a_map_without_own_sizes_has_no_padding():
    grid = TokenGrid.of(torch.zeros(2, 3, 4, 5))
    assert grid == TokenGrid((4, 5), None, None)
    assert grid.key_padding_mask is None


def test_padding_is_below_and_right_of_each_image():
    grid = TokenGrid.of(torch.zeros(2, 1, 2, 3), [(1, 2), (2, 3)])
    assert grid.padding.tolist() == [[[False, False, True], [True, True, True]], [[False] * 3, [False] * 3]]
    assert grid.key_padding_mask.tolist() == [[False, False, True, True, True, True], [False] * 6]


def test_clear_zeroes_the_padding_alone():
    maps = torch.ones(2, 4, 2, 3)
    cleared = TokenGrid.of(maps, [(1, 2), (2, 3)]).clear(maps)
    assert cleared.sum(dim=(1, 2, 3)).tolist() == [8, 24]
    assert TokenGrid.of(maps).clear(maps) is maps


def test_clear_stops_what_is_no_number():
    maps = torch.full((1, 1, 1, 2), float("nan"))
    maps[..., 0] = 1
    assert TokenGrid.of(maps, [(1, 1)]).clear(maps).tolist() == [[[[1, 0]]]]


def test_shrink_keeps_the_cells_that_an_image_owns_in_part():
    grid = TokenGrid.of(torch.zeros(1, 1, 9, 12), [(5, 12)]).shrink(4)
    assert (grid.size, grid.own_sizes) == ((3, 3), ((2, 3),))
    assert grid.padding[0].any(dim=1).tolist() == [False, False, True]
    assert TokenGrid((9, 12)).shrink(4) == TokenGrid((3, 3))


def test_tokens_are_row_major():
    maps = torch.arange(12.0).view(1, 2, 2, 3)
    tokens = TokenGrid.to_tokens(maps)
    assert tokens[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(TokenGrid.of(maps).to_map(tokens), maps)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_map_of_tokens_is_channels_last_for_torch(batch):
    maps = TokenGrid((2, 3)).to_map(torch.randn(batch, 6, 4))
    resized = F.interpolate(maps, size=(4, 6), mode="bilinear")  # keeps the layout that it takes its input to have
    assert TokenGrid.to_tokens(resized).is_contiguous()
