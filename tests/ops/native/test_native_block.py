import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatten_dense.ops.naive import naive_feature_map, naive_linear_attention
from flatten_dense.ops.native import block
from flatten_dense.ops.native.arguments import Affine, Encoding
from flatten_dense.ops.native.build import library
from flatten_dense.ops.table_resizing import resize_table

needs_kernels = pytest.mark.skipif(library() is None, reason="no C compiler")


def randomised(*layers):
    torch.manual_seed(0)
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.3)
    return [*layers, *(copy.deepcopy(layer).double() for layer in layers)]


@needs_kernels
@pytest.mark.parametrize(("channels", "hidden"), [(16, 32), (64, 512), (96, 384), (144, 160), (320, 1280)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (1, 64), (2, 77)])
def test_the_mlp_equals_its_layers(channels, hidden, shape):
    layers = randomised(nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, hidden), nn.Linear(hidden, channels))
    norm, fc1, fc2 = layers[3:]
    x = torch.randn(*shape, channels)
    wide = x.double()
    expected = wide + fc2(F.gelu(fc1(norm(wide))))
    with torch.no_grad():
        block.add_mlp(x, *layers[:3])
    torch.testing.assert_close(x.double(), expected, rtol=1e-5, atol=3e-6 * expected.abs().max().item())


@needs_kernels
def test_gelu_is_exact_from_tail_to_tail():
    norm, fc1, fc2 = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 16)
    with torch.no_grad():
        for parameter in (norm.weight, fc1.weight, fc2.bias):
            parameter.zero_()
        fc2.weight.copy_(torch.eye(16))
        for values in torch.linspace(-12, 12, 640).view(-1, 16):
            fc1.bias.copy_(values)  # all that the hidden channels see
            out = block.add_mlp(torch.zeros(1, 1, 16), norm, fc1, fc2)
            torch.testing.assert_close(out[0, 0].double(), F.gelu(values.double()), rtol=0, atol=1.3e-6)


def attention_case(size, table_size, channels, heads, kernel_size=5, batch=1):
    tokens, dim = size[0] * size[1], channels // heads
    layers = randomised(
        nn.LayerNorm(channels),
        nn.Linear(channels, 3 * channels),
        nn.Linear(channels, channels),
        nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim),
    )
    scale, table = torch.randn(1, 1, channels), torch.randn(1, table_size[0] * table_size[1], channels)
    return layers[:4], layers[4:], scale, table, torch.randn(batch, tokens, channels)


def explicit(layers, scale, table, x, size, table_size, heads, with_norm, power):
    """Everything in float64 by the layers themselves and the N x N matrix."""
    norm, qkv, proj, conv = layers
    x, scale, table = x.double(), scale.double(), table.double()
    q, k, v = qkv(norm(x) if with_norm else x).chunk(3, dim=-1)
    k = k + resize_table(table, table_size, size)
    out = naive_linear_attention(naive_feature_map(q, scale, power), naive_feature_map(k, scale, power), v, heads)
    maps = v.transpose(1, 2).reshape(x.shape[0], -1, *size)
    convolved = torch.cat([conv(part) for part in maps.chunk(heads, dim=1)], dim=1).flatten(2).transpose(1, 2)
    return proj(out + convolved) + (x if with_norm else 0)


@needs_kernels
@pytest.mark.parametrize(
    ("size", "table_size", "channels", "heads", "kernel_size", "batch", "power"),
    [
        ((6, 8), (6, 8), 96, 3, 5, 1, 3),
        ((7, 11), (5, 4), 64, 1, 5, 2, 3),
        ((1, 1), (3, 3), 32, 2, 5, 1, 3),
        ((1, 70), (2, 2), 32, 1, 3, 1, 3),
        ((13, 3), (7, 7), 160, 5, 3, 3, 2),
        ((5, 9), (5, 9), 144, 3, 5, 1, 4),
        ((9, 33), (4, 4), 128, 1, 5, 1, 3),
    ],
)
@pytest.mark.parametrize("with_norm", [True, False])
def test_attention_equals_its_layers(size, table_size, channels, heads, kernel_size, batch, power, with_norm):
    layers, wide, scale, table, x = attention_case(size, table_size, channels, heads, kernel_size, batch)
    norm, qkv, proj, conv = layers
    before = x.clone()
    with torch.no_grad():
        out = block.attend(
            x,
            norm if with_norm else None,
            Affine.of(qkv, 3),
            *Affine.of(proj),
            Affine(conv.weight, conv.bias),
            scale,
            Encoding(table, table_size, size),
            heads,
            power,
            residual=with_norm,
        )
        expected = explicit(wide, scale, table, x, size, table_size, heads, with_norm, power)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=2e-5 * expected.abs().max().item())
    assert torch.equal(x, before)


@needs_kernels
def test_the_number_of_threads_changes_nothing_but_rounding():
    layers, _, scale, table, x = attention_case((9, 33), (4, 4), 96, 3)
    norm, qkv, proj, conv = layers
    rest = (
        Affine.of(qkv, 3),
        *Affine.of(proj),
        Affine(conv.weight, conv.bias),
        scale,
        Encoding(table, (4, 4), (9, 33)),
        3,
        3,
        True,
    )
    threads, outs = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            with torch.no_grad():
                outs.append(block.attend(x, norm, *rest))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-5)


@needs_kernels
def test_plain_layers_of_float32_are_taken():
    assert block.takes_layers(torch.randn(1, 4, 32), nn.LayerNorm(32), nn.Linear(32, 32))


@needs_kernels
@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(32, 32).double(),
        nn.Linear(32, 32).bfloat16(),
        nn.Linear(32, 32, bias=False),
        nn.Linear(32, 32).to("meta"),
        nn.LayerNorm(32, elementwise_affine=False),
        nn.Identity(),
        nn.utils.parametrizations.weight_norm(nn.Linear(32, 32)),
        type("Adapted", (nn.Linear,), {})(32, 32),
    ],
    ids=["double", "bfloat16", "no bias", "meta", "no weight", "another layer", "weight norm", "a class of its own"],
)
def test_other_layers_are_left_alone(layer):
    assert not block.takes_layers(torch.randn(1, 4, 32), layer)


@needs_kernels
@pytest.mark.parametrize("x", [torch.randn(1, 4, 24), torch.randn(1, 0, 32), torch.randn(1, 32, 4).transpose(1, 2)])
def test_other_tokens_are_left_alone(x):
    assert not block.takes_layers(x)


def test_without_kernels_nothing_is_taken(monkeypatch):
    monkeypatch.setattr(block, "library", lambda: None)
    assert not block.takes_layers(torch.randn(1, 4, 32), nn.Linear(32, 32))


@needs_kernels
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 40), (9, 31), (8, 32), (21, 33), (5, 95)])
@pytest.mark.parametrize(("channels", "hidden"), [(16, 32), (32, 1024)])
@pytest.mark.parametrize("relu", [False, True])
def test_the_mlp_with_a_convolution_equals_its_layers(size, channels, hidden, relu):
    convolution = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
    layers = randomised(nn.LayerNorm(channels), nn.Linear(channels, hidden), convolution, nn.Linear(hidden, channels))
    norm, fc1, convolution, fc2 = layers[4:]
    x = torch.randn(2, size[0] * size[1], channels)
    wide = x.double()
    maps = fc1(norm(wide)).transpose(1, 2).reshape(2, hidden, *size)
    expected = wide + fc2(F.gelu(convolution(F.relu(maps) if relu else maps)).flatten(2).transpose(1, 2))
    with torch.no_grad():
        out = block.add_conv_mlp(x, size, *layers[:4], relu)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=3e-6 * expected.abs().max().item())


@needs_kernels
@pytest.mark.parametrize("threads", [1, 2, 5])
@torch.no_grad()
def test_threads_share_the_map_of_the_mlp(threads):
    layers = nn.LayerNorm(16), nn.Linear(16, 1024), nn.Conv2d(1024, 1024, 3, groups=1024), nn.Linear(1024, 16)
    x = torch.randn(1, 50 * 70, 16)
    before = torch.get_num_threads()
    outs = []
    for count in (1, threads):
        torch.set_num_threads(count)
        outs.append(block.add_conv_mlp(x, (50, 70), *layers, relu=False))
    torch.set_num_threads(before)
    torch.testing.assert_close(*outs, rtol=0, atol=0)
