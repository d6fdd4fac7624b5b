import math

import pytest
import torch
import torch.nn.functional as F

from flatten_dense.ops.naive import (
    attention_matrix,
    efficient_matrix,
    hydra_matrix,
    linear_angular_matrix,
    naive_convolution_matrix,
    naive_feature_map,
    naive_interpolation_matrix,
    naive_linear_attention,
    softmax_matrix,
)


def test_matrix_entry_by_hand():
    q = torch.tensor([[[1.0, 2.0, 5.0, 1.0]]]).double()
    k = torch.tensor([[[3.0, 1.0, 0.0, 2.0], [1.0, 0.0, 1.0, 1.0]]]).double()
    # Two heads of two channels: products 5 and 1 in the first, 2 and 6 in the second.
    matrix = attention_matrix(q, k, num_heads=2)
    expected = torch.tensor([[[[5.0, 1.0]], [[2.0, 6.0]]]]).double()
    expected = expected / (expected.sum(-1, keepdim=True) + 2e-6)
    torch.testing.assert_close(matrix, expected, rtol=1e-14, atol=0)


def test_masked_columns_are_zero_and_rows_sum_to_one():
    torch.manual_seed(0)
    mask = torch.tensor([[False, True, False, True]])
    matrix = attention_matrix(torch.rand(1, 3, 8), torch.rand(1, 4, 8), 2, mask)
    assert (matrix[..., mask[0]] == 0).all()
    torch.testing.assert_close(matrix.sum(-1), torch.ones(1, 2, 3), rtol=0, atol=1e-4)


def test_output_is_the_matrix_times_the_values():
    torch.manual_seed(0)
    q, k, v = torch.rand(2, 3, 8), torch.rand(2, 4, 8), torch.randn(2, 4, 8)
    matrix = attention_matrix(q, k, 2)
    expected = torch.cat([matrix[:, g] @ v[..., 4 * g : 4 * g + 4] for g in range(2)], dim=-1)
    torch.testing.assert_close(naive_linear_attention(q, k, v, 2), expected)


def test_feature_map_by_hand():
    x = torch.tensor([[[-1.0, 1.0, 2.0]]]).double()
    scale = torch.full((1, 1, 3), 0.5413248546129181, dtype=torch.float64)  # softplus = 1
    y = torch.tensor([1e-6, 1 + 1e-6, 2 + 1e-6], dtype=torch.float64)
    expected = y**3 / (y**3).norm() * y.norm()
    torch.testing.assert_close(naive_feature_map(x, scale)[0, 0], expected, rtol=1e-12, atol=0)


def masked_case():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, 8).double()
    return q, k, v, torch.tensor([[False, True, False, True]])


@pytest.mark.parametrize("matrix", [softmax_matrix, efficient_matrix])
def test_rows_of_normalised_forms_sum_to_one_and_skip_masked_keys(matrix):
    q, k, _, mask = masked_case()
    weights = matrix(q, k, 2, mask)
    assert (weights[..., mask[0]] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 4).double())


@pytest.mark.parametrize("matrix", [softmax_matrix, efficient_matrix])
def test_large_numbers_do_not_overflow(matrix):
    q, k, _, mask = masked_case()
    weights = matrix(1e3 * q, 1e3 * k, 2, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 4).double())


def test_softmax_entry_by_hand():
    q, k = torch.tensor([[[2.0, 0.0]]]).double(), torch.tensor([[[3.0, 1.0], [0.0, 5.0]]]).double()
    first = math.exp(6 / math.sqrt(2))
    torch.testing.assert_close(softmax_matrix(q, k, 1)[0, 0, 0, 0].item(), first / (first + 1))


def test_efficient_entry_by_hand():
    q, k = torch.tensor([[[0.0, math.log(3)]]]).double(), torch.tensor([[[0.0, 0.0], [math.log(4), 0.0]]]).double()
    # Queries over channels: 1/4, 3/4. Keys over tokens: 1/5, 4/5 in the first channel, 1/2, 1/2 in the second.
    expected = torch.tensor([1 / 20 + 3 / 8, 4 / 20 + 3 / 8]).double()
    torch.testing.assert_close(efficient_matrix(q, k, 1)[0, 0, 0], expected)


def test_hydra_entry_by_hand():
    q, k = torch.tensor([[[3.0, 4.0]]]).double(), torch.tensor([[[0.0, 2.0], [8.0, -6.0]]]).double()
    expected = torch.tensor([[0.0, 0.6 * 0.8], [0.8, 0.8 * -0.6]]).double()
    torch.testing.assert_close(hydra_matrix(q, k)[0, :, 0], expected)


def test_linear_angular_entry_by_hand():
    q = k = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]]).double()
    v = torch.tensor([[[1.0, 0.0], [0.0, 7.0]]]).double()
    own = 0.5 + 1 / math.pi  # the other token is at a right angle
    expected = torch.diag(torch.tensor([own / own, own / (7 * own)])).double()
    torch.testing.assert_close(linear_angular_matrix(q, k, v, 1)[0, 0], expected)


def test_hydra_and_linear_angular_skip_masked_keys():
    q, k, v, mask = masked_case()
    for weights in (hydra_matrix(q, k, mask), linear_angular_matrix(q, k, v, 2, mask)):
        assert (weights[..., mask[0]] == 0).all()
        assert weights[..., ~mask[0]].any()


def test_softmax_adds_the_bias_to_the_products_and_does_not_overflow():
    q = k = torch.full((1, 2, 1), 30.0).double()
    bias = torch.tensor([[0.0, math.log(3)], [float("-inf"), 0.0]]).double()
    weights = softmax_matrix(q, k, 1, attn_bias=bias)
    torch.testing.assert_close(weights[0, 0], torch.tensor([[0.25, 0.75], [0.0, 1.0]]).double())


def test_hydra_makes_matrices_of_the_channels_wanted():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 5, 6)
    torch.testing.assert_close(hydra_matrix(q, k, channels=[4, 1]), hydra_matrix(q, k)[:, [4, 1]])


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (1, 9)])
def test_a_convolution_matrix_convolves(kernel):
    torch.manual_seed(0)
    weight, maps = torch.randn(4, *kernel).double(), torch.randn(4, 3, 7).double()
    padding = [side // 2 for side in kernel]
    expected = F.conv2d(maps[None], weight[:, None], padding=padding, groups=4)[0].flatten(1)
    got = naive_convolution_matrix(weight, (3, 7)) @ maps.flatten(1).unsqueeze(-1)
    torch.testing.assert_close(got.squeeze(-1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_out", "num_in"), [(35, 6), (12, 12), (49, 1), (6, 35)])
def test_an_interpolation_matrix_interpolates(num_out, num_in):
    torch.manual_seed(0)
    line = torch.randn(1, 2, num_in).double()
    expected = F.interpolate(line, size=num_out, mode="linear")
    torch.testing.assert_close(line @ naive_interpolation_matrix(num_out, num_in).T, expected, rtol=0, atol=1e-12)
