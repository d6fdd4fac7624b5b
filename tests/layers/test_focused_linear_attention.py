import pytest
import torch
import torch.nn.functional as F

from flatten_dense.layers import FocusedLinearAttention
from flatten_dense.ops.naive import naive_feature_map, naive_linear_attention

C, G = 12, 3


def make_core(grid_size, seed=0, **options):
    torch.manual_seed(seed)
    core = FocusedLinearAttention(C, G, grid_size, **options).double()
    for parameter in core.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return core


def make_qkv(q_size, kv_size, batch=2):
    torch.manual_seed(1)
    tokens = [size[0] * size[1] for size in (q_size, kv_size, kv_size)]
    return [torch.randn(batch, n, C).double().requires_grad_() for n in tokens]


def explicit(core, q, k, v, size):
    """The layer at its own grid, through the N x M matrix and a loop over heads."""
    q = naive_feature_map(q, core.scale, core.focusing_factor)
    k = naive_feature_map(k + core.positional_encoding, core.scale, core.focusing_factor)
    maps = v.transpose(1, 2).reshape(-1, C, *size)
    convolved = torch.cat([core.dwc(head) for head in maps.chunk(G, dim=1)], dim=1)
    return naive_linear_attention(q, k, v, G) + convolved.flatten(2).transpose(1, 2)


def test_equals_official_swin_window(golden_op):
    x, y, weights = golden_op("swin_w7")
    core = FocusedLinearAttention(64, 4, (7, 7)).double()
    own = {"scale", "positional_encoding", "dwc.weight", "dwc.bias"}
    core.load_state_dict({name: tensor for name, tensor in weights.items() if name in own})
    q, k, v = F.linear(x, weights["qkv.weight"], weights["qkv.bias"]).chunk(3, dim=-1)
    out = F.linear(core(q, k, v, (7, 7), (7, 7)), weights["proj.weight"], weights["proj.bias"])
    torch.testing.assert_close(out, y, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("size", "options"), [((3, 5), {}), ((4, 4), {"focusing_factor": 4, "kernel_size": 3})])
def test_output_and_gradients_equal_the_explicit_form(size, options):
    core, qkv = make_core(size, **options), make_qkv(size, size)
    inputs = [*qkv, *core.parameters()]
    got, expected = core(*qkv, size, size), explicit(core, *qkv, size)
    weight = torch.randn_like(got)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        rtol=1e-9,
        atol=1e-11,
    )


def test_starts_without_encoding_and_with_unit_preactivation_scale():
    core = FocusedLinearAttention(C, G, (3, 4))
    assert core.positional_encoding.shape == (1, 12, C)
    assert core.dwc.weight.shape == (C // G, 1, 5, 5)
    assert not core.positional_encoding.any()
    assert not core.scale.any()


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (3, 7), (16, 4)])
def test_encoding_is_resized_from_its_grid_never_by_token_count(size):
    core, other = make_core((4, 16)), make_core(size)
    table = core.positional_encoding.detach().view(1, 4, 16, C).permute(0, 3, 1, 2)
    resized = F.interpolate(table, size=size, mode="bilinear").flatten(2).transpose(1, 2)
    other.load_state_dict({**core.state_dict(), "positional_encoding": resized})
    qkv = make_qkv(size, size)
    torch.testing.assert_close(core(*qkv, size, size), other(*qkv, size, size), rtol=1e-10, atol=1e-12)


def test_values_of_a_coarser_grid_reach_the_convolution_through_the_flat_index():
    core = make_core((2, 2))
    core.dwc.weight.data.zero_()
    core.dwc.weight.data[:, 0, 2, 2] = 1  # a convolution that changes nothing
    core.dwc.bias.data.zero_()
    q, k, v = make_qkv((2, 4), (2, 2))
    with torch.no_grad():
        phi_q = naive_feature_map(q, core.scale)
        phi_k = naive_feature_map(k + core.positional_encoding, core.scale)
        attended = naive_linear_attention(phi_q, phi_k, v, G)
        added = core(q, k, v, (2, 4), (2, 2)) - attended
    position = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3)  # of 8 tokens among 4, half-pixel centres
    low, part = position.floor().long(), (position % 1).view(1, 8, 1)
    expected = v[:, low] * (1 - part) + v[:, (low + 1).clamp(max=3)] * part
    torch.testing.assert_close(added, expected.detach(), rtol=1e-6, atol=1e-7)


def test_mask_equals_cropping():
    core = make_core((4, 5))
    core.positional_encoding.data.zero_()  # an encoding follows the padded grid
    size, own = (6, 7), (4, 5)
    qkv = make_qkv(size, size)
    mask = torch.ones(2, *size, dtype=torch.bool)
    mask[:, : own[0], : own[1]] = False
    inside = ~mask[0].flatten()
    got = core(*qkv, size, size, mask.flatten(1))[:, inside]
    expected = core(*(x[:, inside] for x in qkv), own, own)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("case", ["dead", "large", "large_signs", "dead_queries_large_keys", "no_key"])
def test_half_precision_is_finite_forward_and_backward(dtype, autocast, case):
    torch.manual_seed(0)
    size = (24, 24)
    core = FocusedLinearAttention(32, 2, size)
    shape = (2, 576, 32)
    q, k, v = {
        "dead": (torch.zeros(shape), -torch.rand(shape), torch.randn(shape)),
        "large": [torch.full(shape, 6e4)] * 3,
        "large_signs": [6e4 * torch.randn(shape).sign() for _ in range(3)],
        "dead_queries_large_keys": (-torch.ones(shape), torch.full(shape, 6e4), torch.full(shape, -6e4)),
        "no_key": [torch.randn(shape) for _ in range(3)],
    }[case]
    q, k, v = (x.to(dtype).requires_grad_() for x in (q, k, v))
    mask = torch.ones(2, 576, dtype=torch.bool) if case == "no_key" else None
    core = core if autocast else core.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        out = core(q, k, v, size, size, mask)
    out.sum(dtype=torch.float32).backward()
    assert out.dtype == dtype
    gradients = {"q": q.grad, "k": k.grad, "v": v.grad} | {n: p.grad for n, p in core.named_parameters()}
    assert [name for name, tensor in {"out": out, **gradients}.items() if not tensor.isfinite().all()] == []


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_is_close_to_float64(dtype, tolerance):
    core, qkv = make_core((6, 6)), make_qkv((6, 6), (6, 6))
    expected = core(*qkv, (6, 6), (6, 6))
    got = core.to(dtype)(*(x.to(dtype) for x in qkv), (6, 6), (6, 6))
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


def test_refuses_an_attention_bias():
    core, qkv = make_core((2, 2)), make_qkv((2, 2), (2, 2))
    with pytest.raises(ValueError, match="attn_bias"):
        core(*qkv, (2, 2), (2, 2), attn_bias=torch.zeros(1, G, 4, 4))


def test_refuses_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="dim=12 and num_heads=5"):
        FocusedLinearAttention(12, 5, (2, 2))


def test_refuses_an_even_kernel():
    with pytest.raises(ValueError, match="odd"):
        FocusedLinearAttention(12, 3, (2, 2), kernel_size=4)
