import pytest
import torch
import torch.nn.functional as F

from flatten_dense.layers import SoftmaxAttention

B, N, M, C, G = 2, 6, 4, 8, 2


def explicit(q, k, v, bias=0.0):
    q, k, v = (x.view(*x.shape[:2], G, C // G).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-2, -1) / (C // G) ** 0.5 + bias).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return [torch.randn(B, n, C).double().requires_grad_() for n in (N, M, M)]


@pytest.fixture
def core():
    return SoftmaxAttention(C, G)


def test_equals_explicit_softmax_with_bias(core, qkv):
    bias = torch.randn(1, G, N, M).double()
    out = core(*qkv, (2, 3), (2, 2), attn_bias=bias)
    torch.testing.assert_close(out, explicit(*qkv, bias), rtol=1e-10, atol=1e-12)


def test_relative_position_bias_of_official_swin(golden_op):
    x, y, weights = golden_op("softmax_swin_w7")
    q, k, v = F.linear(x, weights["qkv.weight"], weights["qkv.bias"]).chunk(3, dim=-1)
    row, column = torch.arange(49) // 7, torch.arange(49) % 7
    index = (row[:, None] - row + 6) * 13 + (column[:, None] - column + 6)
    bias = weights["relative_position_bias_table"][index].permute(2, 0, 1).unsqueeze(0)
    out = SoftmaxAttention(64, 4)(q, k, v, (7, 7), (7, 7), attn_bias=bias)
    out = F.linear(out, weights["proj.weight"], weights["proj.bias"])
    torch.testing.assert_close(out, y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("biased", [False, True])
def test_mask_equals_cropping(core, qkv, biased):
    q, k, v = qkv
    bias = torch.randn(1, G, N, M).double() if biased else torch.zeros(1, G, N, M).double()
    mask = torch.tensor([[False, True, False, True]]).expand(B, M)
    out = core(q, k, v, (2, 3), (2, 2), mask, bias if biased else None)
    expected = explicit(q, k[:, ~mask[0]], v[:, ~mask[0]], bias[..., ~mask[0]])
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("biased", [False, True])
def test_row_without_keys_gives_zeros(core, qkv, biased):
    bias = torch.randn(1, G, N, M).double() if biased else None
    mask = torch.tensor([[True] * M, [False] * M])
    out = core(*qkv, (2, 3), (2, 2), mask, bias)
    gradients = torch.autograd.grad(out.sum(), qkv)
    assert (out[0] == 0).all()
    assert out[1].abs().min() > 0
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_for_large_activations(core, dtype):
    torch.manual_seed(0)
    qkv = [(6e4 * torch.randn(B, n, C).sign()).to(dtype) for n in (N, M, M)]
    assert core(*qkv, (2, 3), (2, 2), attn_bias=torch.zeros(1, G, N, M)).isfinite().all()


def test_refuses_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="dim=8 and num_heads=3"):
        SoftmaxAttention(8, 3)
