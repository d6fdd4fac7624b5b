import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flatten_dense.analysis.statistics import (
    HISTOGRAM_EDGES,
    effective_keys,
    numerical_rank,
    row_entropy,
    sorted_curve,
    token_similarity,
    weight_histogram,
)


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_entropy_is_zero_for_one_key_and_log_m_for_all_alike():
    entropy = row_entropy(rows([0, 1, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]))
    torch.testing.assert_close(entropy, rows(0, math.log(4), math.log(2)))


def test_entropy_is_of_sizes_whatever_their_sign_and_sum():
    torch.testing.assert_close(row_entropy(rows([3, -3, 6])), row_entropy(rows([0.25, 0.25, 0.5])))


def test_a_row_of_zeros_has_no_entropy():
    assert row_entropy(torch.zeros(1, 3)) == 0


def test_effective_keys_count_keys_that_are_alike():
    torch.testing.assert_close(effective_keys(rows([0.2] * 5, [1, 0, 0, 0, 0])), rows(5, 1))


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_rank_is_numpys(shape):
    rng = np.random.default_rng(0)
    matrices = np.stack([rng.normal(size=(shape[0], r)) @ rng.normal(size=(r, shape[1])) for r in (1, 3, 6)])
    matrices[1] += 1e-14 * rng.normal(size=shape)
    ranks, values = numerical_rank(torch.from_numpy(matrices))
    assert ranks.tolist() == [np.linalg.matrix_rank(matrix) for matrix in matrices]
    np.testing.assert_allclose(values, np.linalg.svd(matrices, compute_uv=False), atol=1e-12)


def test_rank_of_float32_is_measured_in_float64():
    matrix = torch.diag(torch.tensor([1.0, 1e-9]))
    assert numerical_rank(matrix)[0] == 2


def test_similarity_is_the_mean_over_pairs_of_different_tokens():
    torch.manual_seed(0)
    tokens = torch.randn(2, 5, 3, dtype=torch.float64)
    cosines = F.cosine_similarity(tokens[:, :, None], tokens[:, None], dim=-1)
    expected = [one[~torch.eye(5, dtype=torch.bool)].mean() for one in cosines]
    torch.testing.assert_close(token_similarity(tokens), torch.stack(expected))


def test_a_token_of_zeros_is_similar_to_none():
    torch.testing.assert_close(token_similarity(rows([0, 0], [1, 0], [2, 0])), torch.tensor(1 / 3).double())


def test_a_single_token_has_no_similarity():
    assert token_similarity(torch.ones(1, 4)).isnan()


def test_the_curve_is_the_mean_of_sorted_shares():
    torch.testing.assert_close(sorted_curve(rows([0.1, 0.7, 0.2], [1, -2, 1])), rows(0.6, 0.225, 0.175))


def test_the_histogram_bins_weights_by_their_factor_of_the_uniform_one():
    shares = weight_histogram(rows([0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]))
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == 0.25  # the zeros
    for factor, fraction in ((2, 0.25), (1, 0.5)):
        (held,) = [i for i in range(64) if HISTOGRAM_EDGES[i] <= factor < HISTOGRAM_EDGES[i + 1]]
        assert shares[held] == fraction


def test_the_histogram_keeps_what_lies_beyond_its_edges():
    weights = torch.zeros(1, 20_000, dtype=torch.float64)
    weights[0, 7] = 1
    assert weight_histogram(weights)[-1] == pytest.approx(1 / 20_000)
