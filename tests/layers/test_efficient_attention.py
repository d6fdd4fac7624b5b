import torch

from flatten_dense.layers import EfficientAttention
from flatten_dense.ops.naive import efficient_matrix


def test_output_and_gradients_equal_the_explicit_form():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 12).double().requires_grad_() for n in (15, 6, 6))
    got = EfficientAttention(12, 3)(q, k, v, (3, 5), (2, 3))
    expected = (efficient_matrix(q, k, 3) @ v.view(2, 6, 3, 4).transpose(1, 2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    for pair in zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (got, expected)), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-8, atol=1e-9)
