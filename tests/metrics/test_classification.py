import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from flatten_dense.metrics import (
    ClassificationConfusion,
    classification_as_dict,
    classification_rows,
    describe_classification,
)


def scored(logits, target, batches=1):
    metric = ClassificationConfusion(logits.shape[1])
    for part, labels in zip(logits.chunk(batches), target.chunk(batches), strict=True):
        metric.update(part, labels)
    return metric.compute()


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(200, 12, generator=generator), torch.randint(0, 12, (200,), generator=generator)


@pytest.mark.parametrize("k", [1, 5])
def test_scores_are_those_of_torchmetrics(drawn, k):
    logits, target = drawn
    expected = multiclass_accuracy(logits, target, num_classes=12, average="micro", top_k=k)
    assert getattr(scored(logits, target), f"top{k}") == pytest.approx(float(expected))


def test_class_accuracies_are_those_of_torchmetrics(drawn):
    logits, target = drawn
    expected = multiclass_accuracy(logits, target, num_classes=12, average="none")
    torch.testing.assert_close(scored(logits, target).accuracy, expected.double(), rtol=1e-6, atol=0)


def test_batches_do_not_matter(drawn):
    whole, parts = scored(*drawn), scored(*drawn, batches=7)
    assert (whole.top1, whole.top5) == (parts.top1, parts.top5)
    assert torch.equal(whole.confusion, parts.confusion)


def test_more_classes_than_a_byte_holds():
    target = torch.tensor([255, 700])  # 255 is what segmentation ignores
    scores = scored(torch.nn.functional.one_hot(target, 1000).float(), target)
    assert scores.top1 == 1
    assert scores.confusion.sum() == 2


def test_of_five_classes_all_are_among_the_first_five():
    assert scored(torch.tensor([[5.0, 4, 3, 2, 1]]), torch.tensor([4])).top5 == 1


def test_nan_is_no_prediction():
    with pytest.raises(ValueError, match="NaN"):
        scored(torch.full((2, 3), math.nan), torch.tensor([0, 1]))


def test_a_row_says_what_became_of_a_class():
    scores = scored(torch.tensor([[2.0, 1, 0], [0, 2, 1], [0, 2, 1]]), torch.tensor([0, 0, 1]))
    first, second, third = classification_rows(scores, ["cat", "dog", "cow"])
    assert first == {"class": "cat", "accuracy": 0.5, "precision": 1, "images": 2, "predicted": 1}
    assert second == {"class": "dog", "accuracy": 1, "precision": 0.5, "images": 1, "predicted": 2}
    assert (third["accuracy"], third["precision"]) == (None, None)


def test_the_table_for_the_terminal():
    scores = scored(torch.tensor([[2.0, 1], [0, 2]]), torch.tensor([0, 0]))
    text = describe_classification(classification_as_dict(scores, ["cat", "dog"]))
    assert "cat        50.0        100.0       2" in text
    assert text.endswith("top-1 50.0 %, top-5 100.0 % of 2 images")


def test_of_many_classes_the_table_shows_the_worst():
    target = torch.arange(50)
    logits = torch.eye(50)
    logits[7] = logits[8]
    text = describe_classification(classification_as_dict(scored(logits, target), [f"c{i}" for i in range(50)]))
    lines = text.splitlines()
    assert len(lines) == 33
    assert lines[2].startswith("c7 ")
