import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatten_dense.ops.native import pieces
from flatten_dense.ops.native.build import library

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler")


@pytest.fixture
def layers():
    torch.manual_seed(0)
    norm, fc1, fc2 = nn.LayerNorm(32, eps=1e-6), nn.Linear(32, 80), nn.Linear(80, 32)
    convolution = nn.Conv2d(80, 80, 3, padding=1, groups=80)
    for layer in (norm, fc1, fc2, convolution):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.3)
    return norm.requires_grad_(False), fc1, convolution, fc2


def assert_as_exact_as_bfloat16(out, x, expected, rounded):
    """What is added errs about as PyTorch's own does, from the truth in float64."""
    added = expected - x
    error = (rounded - expected).square().mean().sqrt()
    assert (out.double() - expected).square().mean().sqrt() < 1.3 * error + 1e-3 * added.abs().max()
    torch.testing.assert_close(out.double() - x, added, rtol=0, atol=0.02 * added.abs().max().item())


@pytest.mark.parametrize("shape", [(1, 1), (2, 77), (1, 200)])
@pytest.mark.parametrize("rows", [1, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_mlp_equals_its_layers(layers, shape, rows, dtype):
    norm, fc1, _, fc2 = layers
    x = torch.randn(*shape, 32, dtype=dtype)
    wide = x.double()
    hidden = F.layer_norm(wide, (32,), norm.weight.double(), norm.bias.double(), 1e-6)
    hidden = F.gelu(F.linear(hidden, fc1.weight.double(), fc1.bias.double()))
    expected = wide + F.linear(hidden, fc2.weight.double(), fc2.bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = x + fc2(F.gelu(fc1(norm(x))))
        out = pieces.add_mlp(x.clone(), norm, fc1, fc2, rows)
    assert_as_exact_as_bfloat16(out, wide, expected, rounded.double())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (9, 5), (12, 20)])
@pytest.mark.parametrize("rows", [1, 2, 5, 100])
@pytest.mark.parametrize("relu", [False, True])
@torch.no_grad()
def test_the_mlp_with_a_convolution_equals_its_layers(layers, size, rows, relu):
    norm, fc1, convolution, fc2 = layers

    def by_layers(x, norm, fc1, convolution, fc2):
        hidden = fc1(norm(x))
        hidden = F.relu(hidden) if relu else hidden
        maps = hidden.transpose(1, 2).reshape(x.shape[0], -1, *size)
        return x + fc2(F.gelu(convolution(maps).flatten(2).transpose(1, 2)))

    x = torch.randn(2, size[0] * size[1], 32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = by_layers(x, *layers)
        out = pieces.add_conv_mlp(x.clone(), size, norm, fc1, convolution, fc2, relu, rows)
    expected = by_layers(x.double(), *(layer.double() for layer in layers))
    assert_as_exact_as_bfloat16(out, x.double(), expected, rounded.double())
