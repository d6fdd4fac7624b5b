import numpy as np
import pytest
import torch

from flatten_dense.metrics import confusion, confusion_matrix


def random_masks(num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(num_classes, (2, 17, 23), generator=generator)
    target = torch.randint(num_classes, (2, 17, 23), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return prediction, target


def plain_loop(prediction: torch.Tensor, target: torch.Tensor, num_classes: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            counts[t, min(p, num_classes)] += 1
    return counts


def test_counts_equal_a_plain_loop_with_truth_in_rows() -> None:
    prediction, target = random_masks(5)
    counts = confusion_matrix(prediction, target, 5)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts.numpy(), plain_loop(prediction, target, 5))


def test_counting_in_pieces_changes_nothing(monkeypatch) -> None:
    prediction, target = random_masks(5)
    whole = confusion_matrix(prediction, target, 5)
    monkeypatch.setattr(confusion, "_PIXELS_AT_ONCE", 50)
    assert torch.equal(confusion_matrix(prediction, target, 5), whole)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_small_integers_do_not_overflow(dtype: torch.dtype) -> None:
    prediction, target = random_masks(150)
    expected = plain_loop(prediction, target, 150)
    np.testing.assert_array_equal(confusion_matrix(prediction.to(dtype), target.to(dtype), 150).numpy(), expected)


def test_unclassified_pixels_have_a_column_of_their_own() -> None:
    prediction, target = random_masks(5)
    prediction[0] = 255
    counts = confusion_matrix(prediction, target, 5, unclassified_index=255)
    np.testing.assert_array_equal(counts.numpy(), plain_loop(prediction, target, 5))
    assert counts[:, 5].sum() == (target[0] != 255).sum()


def test_unclassified_uint8_pixels_of_255_classes_keep_apart() -> None:
    prediction = torch.tensor([255, 254, 0], dtype=torch.uint8)
    counts = confusion_matrix(prediction, torch.zeros_like(prediction), 255, unclassified_index=255)
    assert counts[0].nonzero().flatten().tolist() == [0, 254, 255]


@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_prediction_outside_the_classes_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"prediction holds values .*{wrong}.* expected classes 0\.\.2;"):
        confusion_matrix(torch.tensor([0, wrong]), torch.tensor([0, 0]), 3)


def test_prediction_neither_class_nor_unclassified_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction holds values 0\.\.3, .* or 255 \(no class\)"):
        confusion_matrix(torch.tensor([0, 3, 255]), torch.tensor([0, 0, 0]), 3, unclassified_index=255)


def test_target_outside_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"target holds values 0\.\.3, .* or 255 \(ignored\)"):
        confusion_matrix(torch.tensor([0, 0, 0]), torch.tensor([0, 3, 255]), 3)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and target \(1,\)"):
        confusion_matrix(torch.tensor([0, 1]), torch.tensor([0]), 2)


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="argmax"):
        confusion_matrix(torch.zeros(4), torch.zeros(4, dtype=torch.int64), 2)


@pytest.mark.parametrize("value", [-1, 256])
def test_8_bit_masks_hold_no_value_beyond_8_bits(value: int) -> None:
    prediction, target = (torch.tensor(values, dtype=torch.uint8) for values in ([0, 255, 0], [0, 255, 255]))
    counts = confusion_matrix(prediction, target, 256, ignore_index=value, unclassified_index=value)
    assert (int(counts.sum()), int(counts[255, 255]), int(counts[255, 0])) == (3, 1, 1)
