import math

import pytest
import torch

from flatten_dense.heads.detection.box_head import (
    BoxHead,
    class_targets,
    foreground,
    non_repeating,
    select_detections,
    split,
)
from flatten_dense.heads.detection.conventions import CONVENTIONS

REGIONS = [torch.tensor([[4.0, 4, 40, 60], [0, 0, 90, 90]]), torch.tensor([[10.0, 10, 50, 50]])]
MMDET, TORCHVISION = CONVENTIONS["mmdet"], CONVENTIONS["torchvision"]


@pytest.mark.parametrize("conventions", CONVENTIONS)
@pytest.mark.parametrize("num_convs", [0, 2])
def test_a_score_of_each_class_and_the_background_and_a_box_of_each_class(make_maps, conventions, num_convs):
    head = BoxHead(16, (4, 8, 16, 32), 5, CONVENTIONS[conventions], fc_channels=8, num_convs=num_convs)
    logits, offsets = head(make_maps(), REGIONS)
    assert logits.shape == (3, 6)
    assert offsets.shape == (3, 5, 4)


@pytest.mark.parametrize("num_convs", [0, 2])
def test_a_batch_without_regions_has_neither_scores_nor_boxes(make_maps, num_convs):
    head = BoxHead(16, (4, 8, 16, 32), 5, MMDET, fc_channels=8, num_convs=num_convs)
    logits, offsets = head(make_maps(), [torch.zeros(0, 4)] * 2)
    assert logits.shape == (0, 6)
    assert offsets.shape == (0, 5, 4)
    assert all(buffer.isfinite().all() for buffer in head.buffers())


def test_scores_and_boxes_are_float32_in_mixed_precision(make_maps):
    head = BoxHead(16, (4, 8, 16, 32), 5, MMDET, fc_channels=8)
    with torch.autocast("cpu", torch.bfloat16):
        logits, offsets = head(make_maps(), REGIONS)
    assert (logits.dtype, offsets.dtype) == (torch.float32, torch.float32)


def test_published_initial_weights():
    torch.manual_seed(0)
    head = BoxHead(64, (4, 8, 16, 32), 80, MMDET, fc_channels=1024)
    assert float(head.classes.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert float(head.boxes.weight.detach().std()) == pytest.approx(0.001, rel=0.02)
    for layer in (head.fc1, head.fc2):
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.99 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert not any(layer.bias.any() for layer in (head.fc1, head.fc2, head.classes, head.boxes))


@pytest.mark.parametrize(("rules", "expected"), [(MMDET, [0, 4, 5]), (TORCHVISION, [1, 5, 0])])
def test_where_classes_and_background_stand_among_the_scores(rules, expected):
    assert class_targets(torch.tensor([0, 4, 5]), 5, rules).tolist() == expected


@pytest.mark.parametrize(("rules", "expected"), [(MMDET, [0, 1]), (TORCHVISION, [1, 2])])
def test_the_scores_of_the_classes(rules, expected):
    assert foreground(torch.tensor([[0.0, 1, 2]]), rules).tolist() == [expected]


def test_only_scores_above_0_05_are_detections():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])[:, None]
    scores = torch.tensor([[0.05], [0.06], [0.9]])
    (found,) = select_detections(scores, boxes, [boxes[:, 0]], [(60, 60)], 100, MMDET)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.06]))


def test_boxes_are_clipped_to_their_own_image():
    boxes = torch.tensor([[-5.0, -5, 200, 300]])[:, None]
    regions = [torch.zeros(1, 4), torch.zeros(1, 4)]
    found = select_detections(torch.ones(2, 1), boxes.repeat(2, 1, 1), regions, [(40, 60), (30, 20)], 100, MMDET)
    assert [own.boxes.tolist() for own in found] == [[[0, 0, 60, 40]], [[0, 0, 20, 30]]]


def test_one_region_may_be_found_in_several_classes():
    (found,) = select_detections(
        torch.tensor([[0.4, 0.5]]),
        torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 9]]]),
        [torch.zeros(1, 4)],
        [(9, 9)],
        9,
        MMDET,
    )
    assert found.labels.tolist() == [1, 0]


def test_repetitions_are_dropped_within_a_class_only():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    found = non_repeating(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]), 100)
    assert found.labels.tolist() == [0, 1]


@pytest.mark.parametrize(("height", "found"), [(5.1, 1), (4.9, 2)])
def test_a_box_repeats_another_from_an_iou_of_one_half_on(height, found):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, height]])
    assert len(non_repeating(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), 100).boxes) == found


def test_the_best_are_kept():
    boxes = torch.arange(10).float()[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    found = non_repeating(boxes, torch.arange(10) / 10, torch.zeros(10, dtype=torch.int64), 3)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8, 0.7]))


def test_rows_go_back_to_their_images():
    assert [own.tolist() for own in split(torch.arange(3), REGIONS)] == [[0, 1], [2]]
