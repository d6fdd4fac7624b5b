import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from flatten_dense.metrics import PROTOCOLS, SegmentationConfusion, SegmentationScores, score_confusion


def random_masks(num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(num_classes, (3, 17, 23), generator=generator)
    target = torch.randint(num_classes, (3, 17, 23), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return prediction, target


def scored(prediction: list[int], target: list[int], num_classes: int, protocol: str = "mmseg") -> SegmentationScores:
    metric = SegmentationConfusion(num_classes, protocol=protocol, unclassified_index=255)
    metric.update(torch.tensor(prediction), torch.tensor(target))
    return metric.compute()


# Class 0: 3 true, 2 found; class 1: 1 true and found; class 2 is predicted once, class 3 occurs nowhere.
PREDICTION, TARGET = [0, 0, 2, 1, 3], [0, 0, 0, 1, 255]


@pytest.mark.parametrize(
    ("protocol", "mean_iou", "mean_acc", "iou", "acc"),
    [
        ("mmseg", (2 / 3 + 1 + 0) / 3, (2 / 3 + 1) / 2, [2 / 3, 1, 0, math.nan], [2 / 3, 1, math.nan, math.nan]),
        ("sceneparsing", (2 / 3 + 1 + 0 + 0) / 4, (2 / 3 + 1) / 4, [2 / 3, 1, 0, 0], [2 / 3, 1, 0, 0]),
        (
            "detectron2",
            (2 / 3 + 1) / 2,
            (2 / 3 + 1) / 2,
            [2 / 3, 1, math.nan, math.nan],
            [2 / 3, 1, math.nan, math.nan],
        ),
    ],
)
def test_protocols_by_hand(protocol: str, mean_iou: float, mean_acc: float, iou: list[float], acc: list[float]) -> None:
    scores = scored(PREDICTION, TARGET, 4, protocol)
    np.testing.assert_allclose(scores.iou.numpy(), iou, rtol=1e-15)
    np.testing.assert_allclose(scores.acc.numpy(), acc, rtol=1e-15)
    assert (scores.mIoU, scores.mAcc, scores.aAcc) == pytest.approx((mean_iou, mean_acc, 3 / 4), rel=1e-15)
    assert scores.protocol == protocol


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_agree_with_torchmetrics_where_all_classes_occur(protocol: str) -> None:
    prediction, target = random_masks(6)
    metric = SegmentationConfusion(6, protocol=protocol)
    metric.update(prediction, target)
    scores = metric.compute()
    iou = MulticlassJaccardIndex(6, average=None, ignore_index=255)(prediction, target)
    acc = MulticlassAccuracy(6, average=None, ignore_index=255)(prediction, target)
    overall = MulticlassAccuracy(6, average="micro", ignore_index=255)(prediction, target)
    np.testing.assert_allclose(scores.iou.numpy(), iou.numpy(), rtol=1e-6)
    np.testing.assert_allclose(scores.acc.numpy(), acc.numpy(), rtol=1e-6)
    assert (scores.mIoU, scores.mAcc) == pytest.approx((iou.mean().item(), acc.mean().item()), rel=1e-6)
    assert scores.aAcc == pytest.approx(overall.item(), rel=1e-6)


def test_sceneparsing_equals_the_benchmarks_histograms_of_values_from_1() -> None:
    prediction, target = random_masks(6)
    prediction[prediction == 4] = 3
    target[target == 4] = 255
    prediction[0, :4] = 255
    metric = SegmentationConfusion(6, protocol="sceneparsing", unclassified_index=255)
    metric.update(prediction, target)
    label, answer = ((mask.numpy() + 1) * (mask.numpy() != 255) for mask in (target, prediction))
    answer = answer * (label > 0)
    bins = np.arange(8)
    intersection = np.histogram(answer * (answer == label), bins)[0][1:]
    union = np.histogram(answer, bins)[0][1:] + np.histogram(label, bins)[0][1:] - intersection
    iou = intersection / (np.finfo(float).eps + union)
    scores = metric.compute()
    np.testing.assert_allclose(scores.iou.numpy(), iou, rtol=1e-14)
    assert scores.mIoU == pytest.approx(iou.sum() / 6, rel=1e-14)
    assert scores.aAcc == pytest.approx(((answer == label) & (label > 0)).sum() / (label > 0).sum(), rel=1e-15)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unclassified_pixel_is_missing_from_its_class_and_a_false_alarm_of_none(protocol: str) -> None:
    # Class 0: 1 of 2 found, the other without class; class 1: found.
    scores = scored([0, 255, 1], [0, 0, 1], 2, protocol)
    assert scores.iou.tolist() == scores.acc.tolist() == [1 / 2, 1]
    assert (scores.mIoU, scores.aAcc) == (3 / 4, pytest.approx(2 / 3))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_predicted_on_ignored_pixels_does_not_matter(protocol: str) -> None:
    assert scored([0, 1, 1], [0, 1, 255], 2, protocol)[:3] == scored([0, 1, 0], [0, 1, 255], 2, protocol)[:3]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_do_not_depend_on_the_batch_size(protocol: str) -> None:
    prediction, target = random_masks(6)
    at_once, one_by_one = (SegmentationConfusion(6, protocol=protocol) for _ in range(2))
    at_once.update(prediction, target)
    for p, t in zip(prediction, target, strict=True):
        one_by_one.update(p, t)
    assert at_once.compute()[:3] == one_by_one.compute()[:3]


def test_nothing_labelled_scores_nan() -> None:
    scores = scored([0, 1], [255, 255], num_classes=2)
    assert all(math.isnan(score) for score in (scores.mIoU, scores.mAcc, scores.aAcc))


def test_precision_and_pixels_by_hand() -> None:
    scores = scored([0, 1, 255, 1, 0], [0, 0, 0, 1, 255], num_classes=3)
    assert scores.truth_pixels.tolist() == [3, 1, 0]
    assert scores.predicted_pixels.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(scores.precision.numpy(), [1, 1 / 2, math.nan])


def test_scores_stay_while_the_metric_goes_on_counting() -> None:
    metric = SegmentationConfusion(2)
    metric.update(torch.tensor([0]), torch.tensor([0]))
    scores = metric.compute()
    metric.update(torch.tensor([1]), torch.tensor([1]))
    assert scores.confusion.sum() == 1


def test_counts_beyond_float32_stay_exact() -> None:
    metric = SegmentationConfusion(2)
    metric.confusion += torch.tensor([[2**40, 0, 0], [0, 2**24, 0]])
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert metric.confusion.diagonal().tolist() == [2**40 + 1, 2**24 + 1]
    metric.update(torch.tensor([1]), torch.tensor([0]))
    assert metric.compute().acc[0] == (2**40 + 1) / (2**40 + 2)


def test_counts_of_processes_are_summed() -> None:
    metric, other = SegmentationConfusion(2), SegmentationConfusion(2)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    other.update(torch.tensor([1, 1]), torch.tensor([0, 1]))
    metric.sync(dist_sync_fn=lambda state, group: [state, other.confusion], distributed_available=lambda: True)
    assert metric.confusion.tolist() == [[1, 1, 0], [0, 2, 0]]


def test_unclassified_predictions_are_refused_unless_asked_for() -> None:
    with pytest.raises(ValueError, match=r"prediction holds values 0\.\.255"):
        SegmentationConfusion(2).update(torch.tensor([0, 255]), torch.tensor([0, 0]))


def test_an_unknown_protocol_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"protocol must be one of mmseg, sceneparsing, detectron2, got 'coco'"):
        SegmentationConfusion(3, protocol="coco")
    with pytest.raises(ValueError, match="'coco'"):
        score_confusion(torch.zeros(2, 3, dtype=torch.int64), "coco")


@pytest.mark.parametrize("name", ["ignore_index", "unclassified_index"])
def test_special_values_may_not_be_classes(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=1 is one of the 3 classes"):
        SegmentationConfusion(3, **{name: 1})


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        SegmentationConfusion(1)
