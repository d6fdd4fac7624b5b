"""What all linear attentions but the focused one share; each has its own formula in a file of its own."""

import pytest
import torch

from flatten_dense.layers import (
    EfficientAttention,
    EluLinearAttention,
    HydraAttention,
    LinearAngularAttention,
    ReluLinearAttention,
)

C, G = 12, 3
ALL = pytest.mark.parametrize(
    "kind",
    [ReluLinearAttention, EluLinearAttention, HydraAttention, EfficientAttention, LinearAngularAttention],
)


@ALL
def test_mask_equals_cropping(kind):
    torch.manual_seed(0)
    core, size, own = kind(C, G).double(), (6, 7), (4, 5)
    q, k, v = torch.randn(3, 2, 42, C).double()
    mask = torch.ones(2, *size, dtype=torch.bool)
    mask[:, : own[0], : own[1]] = False
    inside = ~mask[0].flatten()
    got = core(q, k, v, size, size, mask.flatten(1))[:, inside]
    torch.testing.assert_close(got, core(*(x[:, inside] for x in (q, k, v)), own, own), rtol=1e-10, atol=1e-12)


@ALL
def test_keys_may_be_fewer_than_queries(kind):
    core, q, (k, v) = kind(C, G), torch.randn(2, 8, C), torch.randn(2, 2, 4, C)
    if kind is LinearAngularAttention:
        with pytest.raises(ValueError, match=r"queries and keys on one grid, got \(2, 4\) and \(2, 2\)"):
            core(q, k, v, (2, 4), (2, 2))
    else:
        assert core(q, k, v, (2, 4), (2, 2)).shape == (2, 8, C)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["dead", "large", "no_key"])
def test_half_precision_is_finite_forward_and_backward(kind, dtype, case):
    torch.manual_seed(0)
    core, shape = kind(32, 2).to(dtype), (2, 64, 32)
    q, k, v = {
        "dead": (torch.zeros(shape), -torch.rand(shape), torch.randn(shape)),
        "large": [6e4 * torch.randn(shape).sign() for _ in range(3)],
        "no_key": [torch.randn(shape) for _ in range(3)],
    }[case]
    q, k, v = (x.to(dtype).requires_grad_() for x in (q, k, v))
    mask = torch.ones(2, 64, dtype=torch.bool) if case == "no_key" else None
    out = core(q, k, v, (8, 8), (8, 8), mask)
    assert out.dtype == dtype
    assert out.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sum(), (q, k, v)))
    assert mask is None or not out.any()  # nothing to attend to


@ALL
def test_autocast_does_not_round_what_is_inside(kind):
    torch.manual_seed(0)
    core = kind(C, G)
    qkv = torch.randn(3, 2, 64, C)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = core(*qkv, (8, 8), (8, 8))
    torch.testing.assert_close(rounded, core(*qkv, (8, 8), (8, 8)))


@ALL
def test_a_bias_is_refused(kind):
    with pytest.raises(ValueError, match="cannot add attn_bias"):
        kind(C, G)(*torch.randn(3, 1, 4, C), (2, 2), (2, 2), attn_bias=torch.zeros(1, G, 4, 4))


@ALL
def test_heads_divide_the_channels(kind):
    with pytest.raises(ValueError, match="num_heads must divide the channels, got dim=12 and num_heads=5"):
        kind(C, 5)
