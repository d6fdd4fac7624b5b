import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss as TheirDiceLoss

from flatten_dense.losses import DiceLoss, dice_loss


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of 6 classes, of which 4 occur; a part is ignored."""
    torch.manual_seed(0)
    target = torch.randint(4, (2, 5, 7))
    target[:, :2] = 255
    return torch.randn(2, 6, 5, 7), target


def test_equals_the_formula_for_each_class_that_occurs() -> None:
    logits, target = example()
    total = 0.0
    for index in range(4):
        probability, truth = logits.softmax(1)[:, index][target != 255], (target == index)[target != 255]
        total += 1 - 2 * (probability * truth).sum().item() / (probability.sum() + truth.sum()).item()
    assert dice_loss(logits, target).item() == pytest.approx(total / 4, rel=1e-5)


def test_equals_segmentation_models_pytorch_over_the_classes_that_occur() -> None:
    logits, target = example()
    theirs = TheirDiceLoss("multiclass", ignore_index=255)(logits, target).item()  # divides by all 6 classes
    assert dice_loss(logits, target).item() == pytest.approx(theirs * 6 / 4, rel=1e-5)


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_costs_one() -> None:
    target = torch.tensor([[[0, 1, 255]]])
    right = torch.tensor([[20.0, -20.0, 0.0], [-20.0, 20.0, 0.0]]).view(1, 2, 1, 3)
    assert dice_loss(right, target).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-right, target).item() == pytest.approx(1, abs=1e-6)


def test_class_weights_are_those_of_a_mean() -> None:
    logits, target = example()
    one_by_one = [dice_loss(logits, target, class_weights=[float(i == k) for i in range(6)]).item() for k in range(6)]
    assert one_by_one[4:] == [0, 0]
    weighted = DiceLoss(class_weights=[1, 2, 0, 0, 5, 5])(logits, target, 255).item()
    assert weighted == pytest.approx((one_by_one[0] + 2 * one_by_one[1]) / 3, rel=1e-5)
