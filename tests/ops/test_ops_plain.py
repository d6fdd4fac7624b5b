import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from flatten_dense.ops.naive import naive_feature_map, naive_linear_attention
from flatten_dense.ops.plain import focused_feature_map, linear_attention

B, N, M, C, G = 2, 7, 5, 12, 3


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    q, k, v = torch.rand(B, N, C).double(), torch.rand(B, M, C).double(), torch.randn(B, M, C).double()
    return tuple(x.requires_grad_() for x in (q, k, v))


@pytest.fixture
def mask():
    return torch.tensor([[False, True, False, False, True], [False] * M])


@pytest.mark.parametrize("focusing_factor", [1, 2, 3, 4, 2.5, 8])
def test_feature_map_equals_naive(focusing_factor):
    torch.manual_seed(0)
    x, scale = torch.randn(B, N, C).double(), torch.randn(1, 1, C).double()
    expected = naive_feature_map(x, scale, focusing_factor)
    torch.testing.assert_close(focused_feature_map(x, scale, focusing_factor), expected, rtol=1e-12, atol=1e-14)


def test_feature_map_gradient_equals_naive():
    torch.manual_seed(0)
    x, scale = torch.randn(B, N, C).double().requires_grad_(), torch.randn(1, 1, C).double().requires_grad_()
    weight = torch.randn(B, N, C).double()
    got = torch.autograd.grad((focused_feature_map(x, scale) * weight).sum(), (x, scale))
    expected = torch.autograd.grad((naive_feature_map(x, scale) * weight).sum(), (x, scale))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_feature_map_gradcheck():
    torch.manual_seed(0)
    x = (torch.rand(1, 3, 4).double() + 0.1) * torch.tensor([1.0, -1.0, 1.0, 1.0])  # away from the corner of the ReLU
    scale = torch.randn(1, 1, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(focused_feature_map, (x.requires_grad_(), scale))


def test_feature_map_norm_is_over_all_channels():
    x = torch.tensor([[[3.0, 0.0, 0.0, 4.0]]]).double()
    softplus_of_zero = torch.tensor(2.0).double().log()
    out = focused_feature_map(x, torch.zeros(1, 1, 4).double(), 3)
    expected = torch.tensor([27.0, 0.0, 0.0, 64.0]).double() / (27**2 + 64**2) ** 0.5 * 5 / softplus_of_zero
    torch.testing.assert_close(out[0, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1e-6, 6e4])
def test_feature_map_is_finite_at_extremes(dtype, value):
    x = torch.full((1, 2, 64), value).to(dtype).requires_grad_()
    scale = torch.zeros(1, 1, 64, requires_grad=True)
    out = focused_feature_map(x, scale, 32)
    out.sum().backward()
    assert out.dtype == torch.float32
    assert (out > 0).all()
    assert all(t.isfinite().all() for t in (out, x.grad, scale.grad))


@pytest.mark.parametrize("masked", [False, True])
def test_linear_order_equals_naive(qkv, mask, masked):
    mask = mask if masked else None
    torch.testing.assert_close(
        linear_attention(*qkv, G, mask), naive_linear_attention(*qkv, G, mask), rtol=1e-12, atol=1e-13
    )


@pytest.mark.parametrize("masked", [False, True])
def test_linear_order_gradients_equal_naive(qkv, mask, masked):
    mask = mask if masked else None
    weight = torch.randn(B, N, C).double()
    got = torch.autograd.grad((linear_attention(*qkv, G, mask) * weight).sum(), qkv)
    expected = torch.autograd.grad((naive_linear_attention(*qkv, G, mask) * weight).sum(), qkv)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_linear_attention_gradcheck(mask):
    torch.manual_seed(0)
    qkv = [torch.rand(2, n, 4).double().requires_grad_() for n in (3, M, M)]
    assert torch.autograd.gradcheck(lambda q, k, v: linear_attention(q, k, v, 2, mask), qkv)


def test_mask_equals_cropping(qkv, mask):
    q, k, v = qkv
    masked = linear_attention(q, k, v, G, mask)
    for b in range(B):
        keep = ~mask[b]
        cropped = linear_attention(q[b : b + 1], k[b : b + 1, keep], v[b : b + 1, keep], G)
        torch.testing.assert_close(masked[b : b + 1], cropped, rtol=1e-12, atol=1e-13)


def test_masked_keys_may_hold_anything(qkv, mask):
    q, k, v = (x.detach() for x in qkv)
    expected = linear_attention(q, k, v, G, mask)
    k, v = (x.masked_fill(mask.unsqueeze(-1), float("nan")) for x in (k, v))
    assert torch.equal(linear_attention(q, k, v, G, mask), expected)


def test_row_without_keys_gives_zeros(qkv):
    mask = torch.tensor([[True] * M, [False] * M])
    out = linear_attention(*qkv, G, mask)
    gradients = torch.autograd.grad(out.sum(), qkv)
    assert (out[0] == 0).all()
    assert out[1].abs().min() > 0
    assert all(g.isfinite().all() for g in gradients)


def test_cost_is_linear_in_tokens():
    tokens, head_dim = 64, C // G
    with FlopCounterMode(display=False) as counter:
        linear_attention(*(torch.rand(1, tokens, C) for _ in range(3)), G)
    assert counter.get_total_flops() // 2 == tokens * C * (2 * head_dim + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_lower_the_precision(qkv, dtype):
    q, k, v = (x.detach().float() for x in qkv)
    expected = linear_attention(q, k, v, G)
    with torch.autocast("cpu", dtype):
        assert torch.equal(linear_attention(q, k, v, G), expected)
