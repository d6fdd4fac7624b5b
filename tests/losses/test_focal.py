import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from flatten_dense.losses import FocalLoss, focal_loss, segmentation_cross_entropy


def example(num_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    target = torch.randint(num_classes, (2, 5, 7))
    target[:, :2] = 255
    return 3 * torch.randn(2, num_classes, 5, 7), target


@pytest.mark.parametrize("gamma", [0.5, 1, 2, 5])
def test_equals_the_formula(gamma: float) -> None:
    logits, target = example()
    probability = logits.double().softmax(1).gather(1, target.unsqueeze(1) % 255).squeeze(1)[target != 255]
    expected = (-((1 - probability) ** gamma) * probability.log()).mean().item()
    loss = focal_loss(logits, target, gamma=gamma, average="labelled")
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_equals_torchvisions_for_two_classes() -> None:
    _, target = example(num_classes=2)
    margin = 3 * torch.randn(2, 5, 7)
    two_classes = torch.stack([torch.zeros_like(margin), margin], dim=1)
    theirs = sigmoid_focal_loss(margin, (target == 1).float(), alpha=-1, gamma=2)[target != 255]
    assert focal_loss(two_classes, target).item() == pytest.approx(theirs.sum().item() / target.numel(), rel=1e-5)


@pytest.mark.parametrize("average", ["all", "labelled"])
def test_gamma_zero_is_cross_entropy(average: str) -> None:
    logits, target = example()
    expected = segmentation_cross_entropy(logits, target, 255, [1, 2, 3, 4], average)
    torch.testing.assert_close(FocalLoss(0, [1, 2, 3, 4], average)(logits, target, 255), expected)


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_gradients_are_finite_where_the_model_is_certain(gamma: float) -> None:
    logits = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
    focal_loss(logits, torch.tensor([[[0, 1]]]), gamma=gamma).backward()
    assert logits.grad.isfinite().all()


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        FocalLoss(-1)
