import pytest
import torch
from jsonargparse import ArgumentParser

from flatten_dense.losses import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    OHEMCrossEntropyLoss,
    SegmentationLoss,
    WeightedSum,
)

LOSSES = {
    "cross-entropy": CrossEntropyLoss(),
    "of the labelled": CrossEntropyLoss([1, 2, 3], "labelled"),
    "OHEM": OHEMCrossEntropyLoss(min_kept=4),
    "Dice": DiceLoss(),
    "focal": FocalLoss(),
    "sum": WeightedSum([CrossEntropyLoss(), DiceLoss()], [1, 0.5]),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
def test_an_unlabelled_batch_gives_zero_with_zero_gradients(loss: SegmentationLoss) -> None:
    logits = torch.randn(2, 3, 2, 2, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), 255), 255)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@every_loss
def test_half_precision_is_computed_in_float32(loss: SegmentationLoss) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 4).bfloat16(), torch.randint(3, (1, 9, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, target, 255)
    assert value.dtype == torch.float32
    assert value == loss(logits.float(), target, 255)


@every_loss
def test_ignored_pixels_are_not_learnt(loss: SegmentationLoss) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randint(3, (1, 4, 4))
    target[0, 1:3] = 99
    loss(logits, target, 99).backward()
    assert logits.grad[0, :, 1:3].abs().max() == 0
    assert logits.grad[0, :, [0, 3]].abs().sum() > 0


@every_loss
def test_descending_the_gradient_lowers_the_loss(loss: SegmentationLoss) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(3, (2, 8, 8))
    value = loss(logits, target, 255)
    (gradient,) = torch.autograd.grad(value, logits)
    assert loss(logits - gradient, target, 255) < value


@pytest.mark.parametrize("loss", [CrossEntropyLoss, OHEMCrossEntropyLoss, DiceLoss, FocalLoss])
def test_a_weight_for_each_class_is_asked_for(loss: type[SegmentationLoss]) -> None:
    two_weights = loss(class_weights=[1, 2])
    with pytest.raises(ValueError, match="a number for each of the 3 classes, got 2"):
        two_weights(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long(), 255)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_weights_that_are_no_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="class_weights must be numbers from 0"):
        CrossEntropyLoss(class_weights=[1, weight])


@pytest.mark.parametrize(("weights", "factors"), [([2, 0.5], (2, 0.5)), (None, (1, 1))])
def test_a_weighted_sum_is_the_sum_of_weighted_losses(weights: list | None, factors: tuple) -> None:
    torch.manual_seed(0)
    batch = torch.randn(1, 3, 4, 4), torch.randint(3, (1, 9, 9)), 255
    expected = factors[0] * CrossEntropyLoss()(*batch) + factors[1] * DiceLoss()(*batch)
    torch.testing.assert_close(WeightedSum([CrossEntropyLoss(), DiceLoss()], weights)(*batch), expected)


@pytest.mark.parametrize(("losses", "weights"), [([], None), ([DiceLoss()], [1, 2])])
def test_a_sum_needs_losses_and_their_weights(losses: list, weights: list | None) -> None:
    with pytest.raises(ValueError, match="WeightedSum needs losses and a weight for each"):
        WeightedSum(losses, weights)


def test_a_recipe_names_losses_and_their_options() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=SegmentationLoss)
    terms = [
        {"class_path": "flatten_dense.losses.OHEMCrossEntropyLoss", "init_args": {"min_kept": 7}},
        {"class_path": "flatten_dense.losses.DiceLoss"},
    ]
    config = {"class_path": "flatten_dense.losses.WeightedSum", "init_args": {"losses": terms, "weights": [1, 3]}}
    loss = parser.instantiate(parser.parse_object({"loss": config})).loss
    assert [type(term) for term in loss.losses] == [OHEMCrossEntropyLoss, DiceLoss]
    assert loss.losses[0].min_kept == 7
    assert loss.weights == (1, 3)
