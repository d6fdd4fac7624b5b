import torch
from torch import nn

from flatten_dense.layers import Block, TokenGrid

GRID = TokenGrid((2, 3))


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, grid):
        assert grid is GRID
        return self.factor * x


def test_branches_are_normalised_and_added():
    block = Block(4, Scale(2), Scale(3), drop_path=0.0, norm_eps=1e-3)
    x = torch.randn(1, 6, 4)
    norm = nn.LayerNorm(4, eps=1e-3)
    middle = x + 2 * norm(x)
    torch.testing.assert_close(block(x, GRID), middle + 3 * norm(middle))


def test_stochastic_depth_leaves_whole_images_out_in_training_alone():
    block = Block(4, Scale(1), Scale(1), drop_path=1.0, norm_eps=1e-6)
    x = torch.randn(2, 6, 4)
    assert torch.equal(block(x, GRID), x)
    assert not torch.equal(block.eval()(x, GRID), x)
