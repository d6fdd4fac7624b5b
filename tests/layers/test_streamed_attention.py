import pytest
import torch
from torch import nn

from flatten_dense.layers import FocusedLinearAttention, LocallyEnhancedAttention, SoftmaxAttention
from flatten_dense.layers import streamed_attention as module
from flatten_dense.layers.streamed_attention import can_stream_attention, stream_attention
from flatten_dense.ops.forms import attention_form
from flatten_dense.ops.native.arguments import Affine
from flatten_dense.ops.native.build import library

needs_kernels = pytest.mark.skipif(library() is None, reason="no C compiler")
CHANNELS, HEADS, SIZE = 32, 2, (5, 7)


def linear_core(kernel_size=5):
    return FocusedLinearAttention(CHANNELS, HEADS, (3, 4), kernel_size=kernel_size)


def tokens(dtype=torch.float32):
    return torch.randn(2, SIZE[0] * SIZE[1], CHANNELS, dtype=dtype)


@pytest.fixture
def layers():
    return [nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, CHANNELS)]


@needs_kernels
@pytest.mark.parametrize("lepe", [False, True])
def test_linear_attention_in_float32_streams(layers, lepe):
    core = LocallyEnhancedAttention(linear_core(), CHANNELS) if lepe else linear_core()
    assert can_stream_attention(tokens(), core, *layers)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_under_autocast_streams(layers, dtype):
    with torch.autocast("cpu", torch.bfloat16):
        assert can_stream_attention(tokens(dtype), linear_core(), *layers)


def test_softmax_attention_does_not_stream(layers):
    for core in (softmax := SoftmaxAttention(CHANNELS, HEADS)), LocallyEnhancedAttention(softmax, CHANNELS):
        assert not can_stream_attention(tokens(), core, *layers)


def test_attention_that_someone_derived_and_changed_does_not_stream(layers):
    class Mine(FocusedLinearAttention):
        def forward(self, *args, **kwargs):
            return 2 * super().forward(*args, **kwargs)

    class Around(LocallyEnhancedAttention):
        def forward(self, *args, **kwargs):
            return 2 * super().forward(*args, **kwargs)

    assert not can_stream_attention(tokens(), Mine(CHANNELS, HEADS, (3, 4)), *layers)
    assert not can_stream_attention(tokens(), Around(linear_core(), CHANNELS), *layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_types_do_not_stream(layers, dtype):
    assert not can_stream_attention(tokens(dtype), linear_core().to(dtype), *(layer.to(dtype) for layer in layers))


def test_tokens_of_another_type_than_the_products_do_not_stream(layers):
    with torch.autocast("cpu", torch.float16):
        assert not can_stream_attention(tokens(), linear_core(), *layers)


@pytest.mark.parametrize("name", ["scale", "positional_encoding"])
def test_parameters_in_half_precision_do_not_stream(layers, name):
    core = linear_core()
    setattr(core, name, nn.Parameter(getattr(core, name).bfloat16()))
    assert not can_stream_attention(tokens(), core, *layers)


@pytest.mark.parametrize("form", ["plain", "streaming"])
def test_another_form_that_was_demanded_is_not_passed_by(layers, form):
    with attention_form(form):
        assert not can_stream_attention(tokens(), linear_core(), *layers)


@needs_kernels
def test_the_kernels_form_may_be_demanded(layers):
    with attention_form("native"):
        assert can_stream_attention(tokens(), linear_core(), *layers)


def test_an_encoding_that_is_not_contiguous_does_not_stream(layers):
    core = linear_core()
    core.positional_encoding = nn.Parameter(torch.zeros(1, CHANNELS, 12).mT)
    assert not can_stream_attention(tokens(), core, *layers)


def test_a_convolution_that_there_is_no_kernel_for_does_not_stream(layers):
    assert not can_stream_attention(tokens(), linear_core(kernel_size=7), *layers)


def test_a_layer_that_was_replaced_does_not_stream(layers):
    class Adapted(nn.Linear):
        pass

    assert not can_stream_attention(tokens(), linear_core(), layers[0], Adapted(CHANNELS, CHANNELS))


@pytest.mark.parametrize("kernel_size", [3, 5])
@torch.no_grad()
def test_the_convolutions_of_the_core_and_around_it_are_one(kernel_size):
    core = LocallyEnhancedAttention(linear_core(kernel_size), CHANNELS).double()
    inner = core.core.dwc
    maps = torch.randn(2, CHANNELS, *SIZE, dtype=torch.float64)
    expected = torch.cat([inner(part) for part in maps.chunk(HEADS, dim=1)], dim=1) + core.lepe(maps)
    weight, bias = module._convolution(core)
    merged = nn.functional.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2, groups=CHANNELS)
    torch.testing.assert_close(merged, expected, rtol=1e-12, atol=1e-12)


@needs_kernels
@pytest.mark.parametrize("lepe", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-5), (True, 0.03)])
@torch.no_grad()
def test_streaming_equals_the_layers_one_after_another(lepe, residual, autocast, tolerance):
    torch.manual_seed(0)
    norm, qkv, proj = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)
    core = LocallyEnhancedAttention(linear_core(), CHANNELS) if lepe else linear_core()
    for layer in (norm, qkv, proj, core):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.3)
    x = tokens()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = stream_attention(x, norm, Affine.of(qkv, 3), core, proj, SIZE, residual)
    for layer in (norm, qkv, proj, core):
        layer.double()
    wide = x.double()
    with attention_form("plain"):
        expected = proj(core(*qkv(norm(wide)).chunk(3, dim=-1), SIZE, SIZE)) + (wide if residual else 0)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item())
