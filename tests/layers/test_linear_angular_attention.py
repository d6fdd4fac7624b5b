import torch

from flatten_dense.layers import LinearAngularAttention
from flatten_dense.ops.naive import linear_angular_matrix


def make_core():
    torch.manual_seed(0)
    return LinearAngularAttention(12, 3).double()


def test_output_and_gradients_equal_the_explicit_form():
    core = make_core()
    q, k, v = (torch.randn(2, 36, 12).double().requires_grad_() for _ in range(3))
    got = core(q, k, v, (3, 12), (3, 12))
    attended = (linear_angular_matrix(q, k, v, 3) @ v.view(2, 36, 3, 4).transpose(1, 2)).transpose(1, 2)
    convolved = torch.zeros(2, 3, 12, 12).double()  # image, row, column, channel
    maps = v.view(2, 3, 12, 12)
    for column in range(12):
        for offset in range(-4, 5):
            if 0 <= column + offset < 12:
                weight = core.dwc.weight[:, 0, 0, offset + 4].repeat_interleave(4)
                convolved[:, :, column] = convolved[:, :, column] + maps[:, :, column + offset] * weight
    expected = attended.flatten(2) + convolved.flatten(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    inputs = (q, k, v, core.dwc.weight)
    for pair in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (got, expected)), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-8, atol=1e-9)


def test_results_of_a_head_have_length_1_before_the_convolution():
    core = make_core()
    core.dwc.weight.data.zero_()
    out = core(*torch.randn(3, 2, 36, 12).double(), (6, 6), (6, 6))
    torch.testing.assert_close(out.view(2, 36, 3, 4).norm(dim=-1), torch.ones(2, 36, 3).double())
