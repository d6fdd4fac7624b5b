import torch

from flatten_dense.layers import EluLinearAttention
from flatten_dense.ops.naive import naive_linear_attention


def test_output_and_gradients_equal_the_explicit_form():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 12).double().requires_grad_() for n in (15, 6, 6))
    got = EluLinearAttention(12, 3)(q, k, v, (3, 5), (2, 3))
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
    expected = naive_linear_attention(phi_q, phi_k, v, 3)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    for pair in zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (got, expected)), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-8, atol=1e-9)
