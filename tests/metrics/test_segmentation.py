import math

import numpy as np
import pytest
import torch

from flatten_dense.metrics import SegmentationConfusion


def random_masks(num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(num_classes, (2, 17, 23), generator=generator)
    target = torch.randint(num_classes, (2, 17, 23), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return prediction, target


def scored(prediction: list[int], target: list[int], num_classes: int) -> SegmentationConfusion:
    metric = SegmentationConfusion(num_classes)
    metric.update(torch.tensor(prediction), torch.tensor(target))
    return metric


def test_confusion_matrix_equals_a_plain_loop_with_truth_in_rows() -> None:
    prediction, target = random_masks(5)
    expected = np.zeros((5, 5), dtype=np.int64)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            expected[t, p] += 1
    metric = SegmentationConfusion(5)
    metric.update(prediction, target)
    np.testing.assert_array_equal(metric.confusion.numpy(), expected)


def test_scores_equal_histograms_of_intersection_prediction_and_truth() -> None:
    metric = SegmentationConfusion(6)
    intersection, predicted, truth = np.zeros(6), np.zeros(6), np.zeros(6)
    for seed in range(3):
        prediction, target = random_masks(6, seed)
        metric.update(prediction, target)
        p, t = (mask[target != 255].numpy() for mask in (prediction, target))
        intersection += np.histogram(p[p == t], bins=6, range=(0, 5))[0]
        predicted += np.histogram(p, bins=6, range=(0, 5))[0]
        truth += np.histogram(t, bins=6, range=(0, 5))[0]
    scores = metric.compute()
    np.testing.assert_allclose(scores.iou.numpy(), intersection / (predicted + truth - intersection), rtol=1e-15)
    np.testing.assert_allclose(scores.acc.numpy(), intersection / truth, rtol=1e-15)
    assert scores.mIoU == pytest.approx(np.mean(scores.iou.numpy()), rel=1e-15)
    assert scores.mAcc == pytest.approx(np.mean(scores.acc.numpy()), rel=1e-15)
    assert scores.aAcc == pytest.approx(intersection.sum() / truth.sum(), rel=1e-15)


def test_scores_by_hand() -> None:
    # class 0: 2 of 3 found, no false alarm; class 1: 1 of 1 found, 1 false alarm.
    scores = scored([0, 0, 1, 1, 0], [0, 0, 0, 1, 255], num_classes=2).compute()
    assert scores.iou.tolist() == [2 / 3, 1 / 2]
    assert scores.acc.tolist() == [2 / 3, 1.0]
    assert (scores.mIoU, scores.mAcc, scores.aAcc) == pytest.approx((7 / 12, 5 / 6, 3 / 4), rel=1e-15)


def test_class_in_neither_truth_nor_prediction_is_nan_and_left_out_of_the_means() -> None:
    scores = scored([0, 1], [0, 1], num_classes=3).compute()
    assert math.isnan(scores.iou[2])
    assert math.isnan(scores.acc[2])
    assert (scores.mIoU, scores.mAcc) == (1.0, 1.0)


def test_class_only_predicted_has_zero_iou_but_no_accuracy() -> None:
    scores = scored([0, 2], [0, 0], num_classes=3).compute()
    assert scores.iou[2] == 0
    assert math.isnan(scores.acc[2])
    assert scores.mIoU == 0.25
    assert scores.mAcc == 0.5


def test_what_is_predicted_on_ignored_pixels_does_not_matter() -> None:
    assert scored([0, 1], [0, 255], 2).compute().mIoU == scored([0, 0], [0, 255], 2).compute().mIoU == 1.0


def test_nothing_labelled_scores_nan() -> None:
    scores = scored([0, 1], [255, 255], num_classes=2).compute()
    assert all(math.isnan(score) for score in (scores.mIoU, scores.mAcc, scores.aAcc))


def test_counts_beyond_float32_stay_exact() -> None:
    metric = SegmentationConfusion(2)
    metric.confusion += torch.tensor([[2**40, 0], [0, 2**24]])
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert metric.confusion.diagonal().tolist() == [2**40 + 1, 2**24 + 1]
    metric.update(torch.tensor([1]), torch.tensor([0]))
    assert metric.compute().acc[0] == (2**40 + 1) / (2**40 + 2)


def test_counts_of_processes_are_summed() -> None:
    metric, other = scored([0, 1], [0, 1], 2), scored([1, 1], [0, 1], 2)
    metric.sync(dist_sync_fn=lambda state, group: [state, other.confusion], distributed_available=lambda: True)
    assert metric.confusion.tolist() == [[1, 1], [0, 2]]


@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_prediction_outside_the_classes_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"prediction holds values .*{wrong}.* expected classes 0\.\.2"):
        scored([0, wrong], [0, 0], num_classes=3)


def test_target_outside_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"target holds values 0\.\.3, .* or 255 \(ignored\)"):
        scored([0, 0, 0], [0, 3, 255], num_classes=3)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and target \(1,\)"):
        scored([0, 1], [0], num_classes=2)


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="argmax"):
        SegmentationConfusion(2).update(torch.zeros(4), torch.zeros(4, dtype=torch.int64))


def test_ignore_index_may_not_be_a_class() -> None:
    with pytest.raises(ValueError, match=r"ignore_index=1 is one of the 3 classes"):
        SegmentationConfusion(3, ignore_index=1)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        SegmentationConfusion(1)
