import torch

from flatten_dense.layers import HydraAttention
from flatten_dense.ops.naive import hydra_matrix


def test_output_and_gradients_equal_the_explicit_form():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 12).double().requires_grad_() for n in (15, 6, 6))
    got = HydraAttention(12, 3)(q, k, v, (3, 5), (2, 3))
    expected = torch.stack([hydra_matrix(q, k)[:, c] @ v[..., c, None] for c in range(12)], -1).squeeze(2)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    for pair in zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (got, expected)), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-8, atol=1e-9)


def test_every_channel_is_a_head():
    core = HydraAttention(12, 3)
    assert (core.num_heads, core.model_heads) == (12, 3)
