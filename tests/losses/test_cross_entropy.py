import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flatten_dense.losses import (
    CrossEntropyLoss,
    OHEMCrossEntropyLoss,
    ohem_cross_entropy,
    segmentation_cross_entropy,
)


def example(seed: int = 0, num_classes: int = 4, ignored: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels of which a share is ignored."""
    torch.manual_seed(seed)
    target = torch.randint(num_classes, (2, 5, 7))
    target[torch.rand(2, 5, 7) < ignored] = 255
    return torch.randn(2, num_classes, 5, 7), target


def test_equals_log_softmax_summed_over_labelled_and_divided_by_all_pixels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 7)
    target = torch.randint(4, (2, 5, 7))
    target[torch.rand(2, 5, 7) < 0.3] = 255
    total = 0.0
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(7)).tolist():
        label = int(target[b, y, x])
        if label != 255:
            scores = [math.exp(value) for value in logits[b, :, y, x].tolist()]
            total -= math.log(scores[label] / sum(scores))
    assert segmentation_cross_entropy(logits, target).item() == pytest.approx(total / (2 * 5 * 7), rel=1e-5)


def test_ignored_pixels_count_in_the_denominator() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    labelled = torch.zeros(1, 2, 2, dtype=torch.int64)
    quarter = torch.tensor([[[0, 255], [255, 255]]])
    assert segmentation_cross_entropy(logits, labelled).item() == pytest.approx(math.log(2))
    assert segmentation_cross_entropy(logits, quarter).item() == pytest.approx(math.log(2) / 4)


def test_logits_are_resized_linearly_between_pixel_centres() -> None:
    # Doubling [0, 4] with align_corners=False gives 0, 1, 3, 4.
    logits = torch.stack([torch.tensor([[[0.0, 4.0]]]), torch.zeros(1, 1, 2)], dim=1)
    expected = sum(math.log(1 + math.exp(value)) for value in (0, 1, 3, 4)) / 4
    target = torch.ones(1, 1, 4, dtype=torch.int64)
    assert segmentation_cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_wholly_ignored_batch_gives_zero_loss_and_zero_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4).bfloat16()
    target = torch.randint(3, (1, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = segmentation_cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == segmentation_cross_entropy(logits.float(), target).item()


def test_other_ignore_index() -> None:
    assert segmentation_cross_entropy(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), 99), ignore_index=99).item() == 0


def test_average_over_the_labelled_is_torchs_own_mean() -> None:
    logits, target = example()
    expected = F.cross_entropy(logits, target, ignore_index=255)
    assert segmentation_cross_entropy(logits, target, average="labelled").item() == pytest.approx(expected.item())


def test_class_weights_multiply_the_terms_and_leave_the_denominator() -> None:
    logits, target = example()
    weights = torch.tensor([0.5, 3.0, 0.0, 1.0])
    summed = F.cross_entropy(logits, target, weights, ignore_index=255, reduction="sum").item()
    pixels = {"all": target.numel(), "labelled": int((target != 255).sum())}
    for average, count in pixels.items():
        loss = segmentation_cross_entropy(logits, target, class_weights=weights.tolist(), average=average)
        assert loss.item() == pytest.approx(summed / count)


def test_unlabelled_batches_give_zero_by_either_average() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.full((1, 4, 4), 255)
    loss = segmentation_cross_entropy(logits, target, class_weights=[1, 2, 3], average="labelled")
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_another_average_is_refused() -> None:
    with pytest.raises(ValueError, match="average must be 'all' or 'labelled', got 'mean'"):
        segmentation_cross_entropy(*example(), average="mean")


def test_a_recipe_gives_the_same_by_class() -> None:
    logits, target = example()
    loss = CrossEntropyLoss(class_weights=[1, 2, 3, 4], average="labelled")(logits, target, 255)
    assert loss == segmentation_cross_entropy(logits, target, 255, [1, 2, 3, 4], "labelled")


def naive_ohem(logits: torch.Tensor, target: torch.Tensor, threshold: float, min_kept: int) -> float:
    """Sort the probabilities of the true classes and take the lowest, as the rule says."""
    scores = np.exp(logits.double().numpy())
    probabilities = np.take_along_axis(scores / scores.sum(1, keepdims=True), target.numpy()[:, None] % 255, 1)[:, 0]
    ascending = np.sort(probabilities[target.numpy() != 255])
    kept = max(int((ascending < threshold).sum()), min(min_kept * len(target), len(ascending)))
    return float(-np.log(ascending[:kept]).mean())


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 1), (0.2, 1), (0.01, 12), (0.2, 1000), (1.0, 1)])
def test_ohem_keeps_the_hardest_pixels(threshold: float, min_kept: int) -> None:
    logits, target = example()
    loss = ohem_cross_entropy(logits, target, threshold=threshold, min_kept=min_kept)
    assert loss.item() == pytest.approx(naive_ohem(logits, target, threshold, min_kept), rel=1e-5)


def test_ohem_learns_nothing_from_easy_pixels() -> None:
    logits, target = example(ignored=0)
    logits.requires_grad_()
    ohem_cross_entropy(logits, target, threshold=0.4, min_kept=1).backward()
    probability = logits.detach().softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    touched = logits.grad.abs().sum(1) > 0
    assert torch.equal(touched, probability < 0.4)


def test_ohem_keeps_pixels_that_are_equally_hard() -> None:
    assert (
        ohem_cross_entropy(torch.zeros(1, 4, 3, 3), torch.zeros(1, 3, 3).long(), threshold=0.1, min_kept=2).item() > 1
    )


def test_ohem_weighs_the_kept_pixels() -> None:
    logits, target = example()
    plain = ohem_cross_entropy(logits, target, threshold=0.5)
    doubled = OHEMCrossEntropyLoss(threshold=0.5, class_weights=[2, 2, 2, 2])(logits, target, 255)
    assert doubled.item() == pytest.approx(2 * plain.item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, "threshold must be a probability"),
        ({"min_kept": 0}, "min_kept must be at least 1"),
        ({"class_weights": [-1.0]}, "class_weights must be numbers from 0"),
    ],
)
def test_ohem_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OHEMCrossEntropyLoss(**options)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balance_counts_a_class_by_a_power_of_its_share(balance: float) -> None:
    logits, target = example()
    target[target == 3] = 0  # a class that does not occur
    per_pixel = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    shares = torch.tensor([(target == index).sum() for index in range(3)]) / (target != 255).sum()
    means = torch.stack([per_pixel[target == index].mean() for index in range(3)])
    expected = (shares ** (1 - balance) * means).sum() / (shares ** (1 - balance)).sum()
    loss = segmentation_cross_entropy(logits, target, average="labelled", balance=balance)
    torch.testing.assert_close(loss, expected)


def test_balance_of_an_unlabelled_batch_gives_zero() -> None:
    logits, target = example()
    assert CrossEntropyLoss(balance=1)(logits, torch.full_like(target, 255), 255) == 0


def test_balance_multiplies_class_weights() -> None:
    logits, target = example()
    only_first = segmentation_cross_entropy(logits, target, class_weights=[1, 0, 0, 0], balance=1, average="labelled")
    first = F.cross_entropy(logits, target, ignore_index=255, reduction="none")[target == 0]
    torch.testing.assert_close(only_first, first.mean() / 4)


@pytest.mark.parametrize("balance", [-0.1, 1.1])
def test_balance_out_of_range_is_refused(balance: float) -> None:
    with pytest.raises(ValueError, match="balance must lie in"):
        CrossEntropyLoss(balance=balance)
