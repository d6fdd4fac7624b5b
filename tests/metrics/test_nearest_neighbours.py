import math

import pytest
import torch
import torch.nn.functional as F

from flatten_dense.metrics.nearest_neighbours import (
    nearest_neighbour_accuracy,
    nearest_neighbours,
    neighbour_votes,
)


def features(num: int, seed: int, channels: int = 6) -> torch.Tensor:
    return torch.randn(num, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_neighbours_are_those_of_a_full_sort_however_the_bank_is_cut(chunk):
    queries, bank = features(9, 0), features(40, 1)
    similarity, rows = nearest_neighbours(queries, bank, 5, chunk)
    products = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    expected = products.argsort(dim=1, descending=True)[:, :5]
    assert rows.tolist() == expected.tolist()
    torch.testing.assert_close(similarity, products.gather(1, expected))


def test_the_largest_product_at_hand_is_bounded_by_the_chunk(monkeypatch):
    sizes = []
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: sizes.append(b.shape[1]) or product(a, b))
    nearest_neighbours(features(3, 0), features(100, 1), 5, chunk=16)
    assert max(sizes) == 16


def test_votes_are_those_of_the_paper():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.5, 0.5, 0.5]])
    labels = torch.tensor([[0, 2, 2], [1, 1, 0]])
    votes = neighbour_votes(similarity, labels, 4, temperature=0.5)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for row in range(2):
        for column in range(3):
            expected[row, labels[row, column]] += math.exp(float(similarity[row, column]) / 0.5)
    torch.testing.assert_close(votes / votes.sum(1, keepdim=True), expected / expected.sum(1, keepdim=True))


def test_a_small_temperature_does_not_overflow():
    votes = neighbour_votes(torch.tensor([[1.0, 0.9]]), torch.tensor([[0, 1]]), 2, temperature=1e-4)
    assert votes.isfinite().all()
    assert votes.argmax() == 0


def naive(queries, targets, bank, labels, num_classes, num, temperature):
    """Top-1 and top-5, photo by photo in plain Python."""
    cosine = [[float(F.cosine_similarity(q, b, dim=0)) for b in bank.double()] for q in queries.double()]
    top1 = top5 = 0
    for own, target in zip(cosine, targets.tolist(), strict=True):
        votes = [0.0] * num_classes
        for row in sorted(range(len(bank)), key=lambda row: -own[row])[:num]:
            votes[int(labels[row])] += math.exp(own[row] / temperature)
        order = sorted((c for c in range(num_classes) if votes[c]), key=lambda c: -votes[c])
        top1 += order[0] == target
        top5 += target in order[:5]
    return top1 / len(targets), top5 / len(targets)


@pytest.mark.parametrize("block", [7, 1024])
def test_accuracy_is_that_of_a_naive_loop(block, monkeypatch):
    monkeypatch.setattr("flatten_dense.metrics.nearest_neighbours._BLOCK", block)
    bank, labels = 3 * features(60, 0), torch.arange(60) % 8
    queries, targets = features(30, 1), torch.arange(30) % 8
    done = []
    found = nearest_neighbour_accuracy(queries, targets, bank, labels, (1, 5, 20, 60), 0.2, progress=done.append)
    for num, scores in found.items():
        assert scores == pytest.approx(naive(queries, targets, bank, labels, 8, num, 0.2)), f"{num} neighbours"
    assert done[-1] == 30


def test_apart_clusters_are_told_apart():
    centres = 10 * torch.eye(4)
    labels = torch.arange(40) % 4
    bank, queries = centres[labels] + features(40, 0, 4), centres[labels] + features(40, 1, 4)
    assert nearest_neighbour_accuracy(queries, labels, bank, labels, (1, 10)) == {1: (1.0, 1.0), 10: (1.0, 1.0)}


def test_a_class_without_a_neighbour_is_never_among_the_five():
    found = nearest_neighbour_accuracy(torch.eye(2), torch.tensor([1, 2]), torch.eye(2), torch.tensor([0, 1]), (1,))
    assert found == {1: (0.0, 0.0)}
