from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatten_dense.layers import ConvMlp, Mlp, TokenGrid, streaming


def test_conv_mlp_equals_official(golden_op):
    golden = golden_op("mlp_pvt_v2_4x16")
    mlp = ConvMlp(64, 128).double()
    mlp.load_state_dict({name.replace("dwconv.dwconv", "dwconv"): t for name, t in golden.weights.items()})
    torch.testing.assert_close(mlp(golden.x, TokenGrid((4, 16))), golden.y, rtol=0, atol=1e-10)


def test_relu_comes_before_the_convolution():
    torch.manual_seed(0)
    mlp = ConvMlp(4, 8, relu=True)
    x = torch.randn(1, 6, 4)
    maps = F.relu(mlp.fc1(x)).transpose(1, 2).view(1, 8, 2, 3)
    expected = mlp.fc2(F.gelu(mlp.dwconv(maps)).flatten(2).transpose(1, 2))
    torch.testing.assert_close(mlp(x, TokenGrid((2, 3))), expected)


def test_convolution_does_not_read_the_padding_of_a_batch():
    mlp = ConvMlp(4, 8)
    x = torch.randn(1, 12, 4)
    grid = TokenGrid.of(torch.zeros(1, 1, 3, 4), [(2, 3)])
    alone = mlp(x.view(1, 3, 4, 4)[:, :2, :3].reshape(1, 6, 4), TokenGrid((2, 3)))
    torch.testing.assert_close(mlp(x, grid).view(3, 4, 4)[:2, :3].flatten(0, 1), alone[0])


def test_plain_mlp_sees_each_token_alone():
    mlp = Mlp(4, 8)
    x = torch.randn(1, 6, 4)
    torch.testing.assert_close(mlp(x, TokenGrid((2, 3)))[:, 2:3], mlp(x[:, 2:3], TokenGrid((1, 1))))


@pytest.fixture(params=[1, 24, 100, 10_000])
def pieces(request, monkeypatch):
    """Pieces of so many hidden values: from a row each to everything in one."""
    monkeypatch.setattr(streaming, "PIECE_ON_CPU", request.param)
    monkeypatch.setattr(streaming, "PIECE_PER_THREAD", 0)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (4, 3), (5, 3), (9, 2), (13, 5)])
@pytest.mark.parametrize("make", [Mlp, ConvMlp, partial(ConvMlp, relu=True)])
@torch.no_grad()
def test_pieces_give_what_the_whole_gives(make, size):
    torch.manual_seed(0)
    mlp, norm = make(4, 8).double(), nn.LayerNorm(4).double()
    x, grid = torch.randn(2, size[0] * size[1], 4).double(), TokenGrid(size)
    expected = x + mlp(norm(x), grid)
    assert mlp.add_to(x, norm, grid) is x
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("pieces")
@torch.no_grad()
def test_pieces_do_not_read_the_padding_of_a_batch():
    torch.manual_seed(0)
    mlp, norm = ConvMlp(4, 8).double(), nn.LayerNorm(4).double()
    grid = TokenGrid.of(torch.zeros(2, 1, 9, 4), [(9, 3), (5, 4)])
    x = torch.randn(2, 36, 4).double()
    expected = x + mlp(norm(x), grid)
    torch.testing.assert_close(mlp.add_to(x, norm, grid), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [Mlp, ConvMlp])
@torch.no_grad()
def test_a_replaced_layer_is_called(make):
    torch.manual_seed(0)
    mlp, norm, grid, x = make(16, 32), nn.LayerNorm(16), TokenGrid((4, 5)), torch.randn(1, 20, 16)
    mlp.fc1 = nn.Sequential(mlp.fc1, nn.Tanh())
    torch.testing.assert_close(mlp.add_to(x.clone(), norm, grid), x + mlp(norm(x), grid))


@torch.no_grad()
def test_a_norm_inside_the_mlp_is_called():
    torch.manual_seed(0)
    mlp, norm, grid, x = (
        Mlp(16, 32, norm_layer=nn.LayerNorm),
        nn.LayerNorm(16),
        TokenGrid((4, 5)),
        torch.randn(1, 20, 16),
    )
    torch.testing.assert_close(mlp.add_to(x.clone(), norm, grid), x + mlp(norm(x), grid))
