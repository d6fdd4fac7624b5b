from functools import partial

import pytest
import torch
from torch import nn
from torchvision.ops import generalized_box_iou

from flatten_dense.heads import CascadeMaskRCNNHead
from flatten_dense.heads.detection import cascade_mask_rcnn
from flatten_dense.heads.detection.boxes import clip_boxes, decode_boxes
from flatten_dense.heads.detection.regions import SampledRegions
from flatten_dense.heads.detection.roi_align import extend_edges

STRIDES = (4, 8, 16, 32, 64)
WEIGHTS = ((10, 10, 5, 5), (20, 20, 10, 10), (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067))
make = partial(
    CascadeMaskRCNNHead, (16,) * 5, STRIDES, 3, num_convs=1, fc_channels=8, train_proposals=50, test_proposals=30
)


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = make()
    for box_head in head.box_heads:
        nn.init.normal_(box_head.classes.weight)
        nn.init.normal_(box_head.boxes.weight, std=0.1)
    return head


def test_boxes_are_those_of_the_last_stage_and_logits_the_mean_of_all(head, make_maps, images):
    maps = make_maps()
    head.eval()
    logits, decoded = [], []

    def record(module, inputs, out):
        decoded.append(decode_boxes(out[1], torch.cat(inputs[1])[:, None], WEIGHTS[len(logits)], True))
        logits.append(out[0])

    for box_head in head.box_heads:
        box_head.register_forward_hook(record)
    with torch.no_grad():
        found = head.predict(maps, images)
    scores = torch.stack(logits).mean(0).softmax(1)[:, :-1]
    for number, (own, size) in enumerate(zip(found, images.sizes, strict=True)):
        rows = slice(0, 30) if number == 0 else slice(30, None)
        boxes = clip_boxes(decoded[2][rows], size)
        for box, score, label in zip(own.boxes, own.scores, own.labels, strict=True):
            source = (boxes[:, label] - box).abs().amax(1).argmin()
            torch.testing.assert_close(boxes[source, label], box)
            torch.testing.assert_close(scores[rows][source, label], score)


def test_a_stage_starts_from_the_boxes_of_the_best_class_before(head, make_maps, images):
    head.eval()
    seen = []
    for box_head in head.box_heads:
        box_head.register_forward_hook(lambda module, inputs, out: seen.append((inputs[1], out)))
    with torch.no_grad():
        head.predict(make_maps(), images)
    for stage in range(2):
        (before, (logits, offsets)), (after, _) = seen[stage : stage + 2]
        decoded = decode_boxes(offsets, torch.cat(before)[:, None], WEIGHTS[stage], True)
        chosen = decoded[torch.arange(len(decoded)), logits[:, :-1].argmax(1)]
        torch.testing.assert_close(after[0], clip_boxes(chosen[: len(before[0])], images.sizes[0]))


def test_masks_are_the_mean_of_three_heads(head, make_maps, images):
    head.eval()
    maps = make_maps()
    with torch.no_grad():
        found = head.predict(maps, images)
        readable = extend_edges(maps, STRIDES, images)
        each = [mask_head(readable, [own.boxes for own in found]).sigmoid() for mask_head in head.mask_heads]
    labels = torch.cat([own.labels for own in found])
    expected = torch.stack(each).mean(0)[torch.arange(len(labels)), labels]
    torch.testing.assert_close(torch.cat([own.masks for own in found]), expected)


def test_losses_of_later_stages_weigh_less(head, make_maps, images, targets):
    own_losses = []
    original = head._box_losses
    head._box_losses = lambda *args: own_losses.append(original(*args)) or dict(own_losses[-1])
    for mask_head in head.mask_heads:
        mask_head.loss = lambda *args: torch.tensor(2.0)
    losses = head.loss(make_maps(), images, targets)
    for stage, weight in enumerate((1, 0.5, 0.25)):
        torch.testing.assert_close(losses[f"loss_cls_{stage}"], weight * own_losses[stage]["loss_cls"])
        torch.testing.assert_close(losses[f"loss_box_{stage}"], weight * own_losses[stage]["loss_box"])
        assert losses[f"loss_mask_{stage}"] == 2 * weight


def test_boxes_learn_by_ten_times_the_giou_of_all_sampled_regions(head, targets):
    boxes = targets[0]["boxes"] + torch.tensor([3.0, -4, 5, 6])
    labels = torch.cat([targets[0]["labels"], torch.tensor([3])])
    regions = [SampledRegions(torch.cat([boxes, boxes[:1]]), labels, torch.arange(3), torch.zeros(4, dtype=torch.bool))]
    decoded = torch.cat([boxes, boxes[:1]])[:, None].repeat(1, 3, 1)
    losses = head._box_losses(torch.zeros(4, 4), decoded, regions, targets[:1])
    giou = generalized_box_iou(boxes, targets[0]["boxes"]).diagonal()
    torch.testing.assert_close(losses["loss_box"], 10 * (1 - giou).sum() / 4, rtol=1e-4, atol=1e-4)


def test_classes_learn_by_the_cross_entropy_of_all_sampled_regions(head, targets):
    boxes = targets[0]["boxes"]
    labels = torch.tensor([0, 2, 1, 3])
    regions = [SampledRegions(torch.cat([boxes, boxes[:1]]), labels, torch.arange(3), torch.zeros(4, dtype=torch.bool))]
    logits = torch.arange(16.0).view(4, 4).sin()
    losses = head._box_losses(logits, torch.cat([boxes, boxes[:1]])[:, None].repeat(1, 3, 1), regions, targets[:1])
    picked = torch.stack([row.exp()[label] / row.exp().sum() for row, label in zip(logits, labels, strict=True)])
    torch.testing.assert_close(losses["loss_cls"], -picked.log().mean())


def test_a_stage_does_not_teach_the_one_before(head, make_maps, images, targets):
    losses = head.loss(make_maps(), images, targets)
    later = [losses[f"loss_{name}_{stage}"] for name in ("cls", "box", "mask") for stage in (1, 2)]
    torch.stack(later).sum().backward()
    assert all(parameter.grad is None for parameter in head.box_heads[0].parameters())
    assert all(parameter.grad is None for parameter in head.rpn.parameters())


def test_stages_ask_for_more_overlap_each(head, make_maps, images, targets, monkeypatch):
    asked = []
    original = cascade_mask_rcnn.sample_regions

    def spy(boxes, own_targets, num_classes, iou, number):
        asked.append(iou)
        return original(boxes, own_targets, num_classes, iou, number)

    monkeypatch.setattr(cascade_mask_rcnn, "sample_regions", spy)
    head.loss(make_maps(), images, targets)
    assert asked == [0.5, 0.6, 0.7]


def test_the_objects_own_boxes_are_not_refined(head, images):
    boxes = torch.tensor([[10.0, 10, 50, 50], [20, 20, 60, 60]])
    own = SampledRegions(boxes, torch.tensor([1, 3]), torch.tensor([0]), torch.tensor([True, False]))
    decoded = boxes[:, None].repeat(1, 3, 1) + torch.arange(3.0)[None, :, None]
    logits = torch.tensor([[0.0, 0, 0, 9], [0, 5, 0, 9]])
    (refined,) = head._refined_samples(logits, decoded, [own], images._replace(sizes=images.sizes[:1]))
    assert refined.tolist() == [[21, 21, 61, 61]]  # background moves as its best class, 1


def test_regions_on_objects_move_as_their_true_class(head, images):
    boxes = torch.tensor([[20.0, 20, 60, 60]])
    own = SampledRegions(boxes, torch.tensor([1]), torch.tensor([0]), torch.tensor([False]))
    decoded = boxes[:, None].repeat(1, 3, 1) + torch.arange(3.0)[None, :, None]
    (refined,) = head._refined_samples(torch.zeros(1, 4), decoded, [own], images._replace(sizes=images.sizes[:1]))
    assert refined.tolist() == [[21, 21, 61, 61]]


def test_a_box_that_left_the_image_goes_no_further(head, images):
    boxes = torch.tensor([[10.0, 10, 50, 50], [20, 20, 60, 60]])
    own = SampledRegions(boxes, torch.tensor([3, 3]), torch.tensor([]), torch.tensor([False, False]))
    moved = boxes + torch.tensor([[500.0], [0]])
    (refined,) = head._refined_samples(
        torch.zeros(2, 4), moved[:, None].repeat(1, 3, 1), [own], images._replace(sizes=images.sizes[:1])
    )
    assert refined.tolist() == [[20, 20, 60, 60]]


def test_region_proposals_learn_as_published():
    head = CascadeMaskRCNNHead((16,) * 5, STRIDES, 3, num_convs=1, fc_channels=8)
    assert head.rpn.drops_leaving
    assert head.rpn.smooth_l1_beta == pytest.approx(1 / 9)
    assert head.rpn.num_proposals == {True: 2000, False: 1000}


def test_every_weight_learns_with_objects_and_without(make_maps, images, targets, no_targets):
    for own in (targets, no_targets):
        head = make()
        torch.stack(list(head.loss(make_maps(), images, own).values())).sum().backward()
        assert [name for name, parameter in head.named_parameters() if parameter.grad is None] == []


def test_without_masks_there_are_no_mask_heads(make_maps, images, targets):
    head = make(masks=False)
    assert head.iou_types == ("bbox",)
    assert not any("mask" in name for name in head.loss(make_maps(), images, targets))
