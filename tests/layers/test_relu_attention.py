import math

import torch
import torch.nn.functional as F

from flatten_dense.layers import FocusedLinearAttention, ReluLinearAttention
from flatten_dense.ops.naive import naive_linear_attention


def test_output_and_gradients_equal_the_explicit_form():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 12).double().requires_grad_() for n in (15, 6, 6))
    got = ReluLinearAttention(12, 3)(q, k, v, (3, 5), (2, 3))
    expected = naive_linear_attention(F.relu(q) + 1e-6, F.relu(k) + 1e-6, v, 3)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    for pair in zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (got, expected)), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-8, atol=1e-9)


def test_equals_the_focused_core_with_power_1():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 15, 12).double()
    focused = FocusedLinearAttention(12, 3, (3, 5), focusing_factor=1, kernel_size=None).double()
    focused.scale.data.fill_(math.log(math.e - 1))  # its softplus is 1
    got, expected = ReluLinearAttention(12, 3)(q, k, v, (3, 5), (3, 5)), focused(q, k, v, (3, 5), (3, 5))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
