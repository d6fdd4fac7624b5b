import math

import pytest
import torch

from flatten_dense.ops.naive import (
    attention_matrix,
    efficient_matrix,
    hydra_matrix,
    linear_angular_matrix,
    naive_feature_map,
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
