import pytest
import torch
from torch import nn

from flatten_dense.layers import (
    Block,
    ConvMlp,
    FocusedLinearAttention,
    FusedAttention,
    Mlp,
    SoftmaxAttention,
    TokenGrid,
)

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


@pytest.mark.parametrize("dim", [8, 32])  # 32: what compiled kernels take
@pytest.mark.parametrize("mlp", [Mlp, ConvMlp])
@pytest.mark.parametrize("core", [FocusedLinearAttention, SoftmaxAttention])
def test_inference_gives_what_training_sees(mlp, core, dim):
    attention = FusedAttention(dim, core(dim, 2) if core is SoftmaxAttention else core(dim, 2, (2, 3)))
    block = Block(dim, attention, mlp(dim, 2 * dim), drop_path=0.5, norm_eps=1e-6).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 6, dim)
    before = x.clone()
    expected = block(x, GRID)
    with torch.inference_mode():
        torch.testing.assert_close(block(x, GRID), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["drop_path1", "drop_path2"])
def test_what_took_the_place_of_stochastic_depth_is_called_at_inference(name):
    class Half(nn.Module):
        def forward(self, x):
            return x / 2

    attention = FusedAttention(32, FocusedLinearAttention(32, 2, (2, 3)))
    block = Block(32, attention, Mlp(32, 64), drop_path=0.0, norm_eps=1e-6).eval()
    setattr(block, name, Half())
    x = torch.randn(1, 6, 32)
    expected = block(x, GRID)
    with torch.no_grad():
        torch.testing.assert_close(block(x, GRID), expected)


def test_a_hook_keeps_what_attention_gave():
    block = Block(4, Scale(2), Mlp(4, 8), drop_path=0.0, norm_eps=1e-6).eval()
    kept = []
    block.attn.register_forward_hook(lambda module, args, out: kept.append((out, out.clone())))
    with torch.no_grad():
        block(torch.randn(1, 6, 4), GRID)
    assert torch.equal(*kept[0])


@pytest.mark.parametrize("autocast", [False, True])
def test_inference_keeps_the_type_of_the_sum(autocast):
    block = Block(4, Scale(2), Mlp(4, 8), drop_path=0.0, norm_eps=1e-6).eval()
    x = torch.randn(1, 6, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = block(x, GRID)
        with torch.no_grad():
            out = block(x, GRID)
    torch.testing.assert_close(out, expected.detach())
