import math

import pytest
import torch

from flatten_dense.losses import segmentation_cross_entropy


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
