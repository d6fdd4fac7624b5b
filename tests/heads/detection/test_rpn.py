import math

import pytest
import torch

from flatten_dense.heads.detection.conventions import CONVENTIONS
from flatten_dense.heads.detection.rpn import RegionProposalNetwork

STRIDES = (4, 8, 16, 32, 64)


def make_rpn(conventions="mmdet", **options):
    torch.manual_seed(0)
    rpn = RegionProposalNetwork(16, STRIDES, CONVENTIONS[conventions], **options)
    for conv in (rpn.objectness, rpn.offsets):
        torch.nn.init.normal_(conv.weight, std=0.3)
    return rpn


def test_regions_lie_in_their_own_image(make_maps, images):
    with torch.no_grad():
        regions, _ = make_rpn().eval()(make_maps(), images)
    for own, (height, width) in zip(regions, images.sizes, strict=True):
        assert len(own) > 50
        assert own.min() >= 0
        assert own[:, 2].max() <= width
        assert own[:, 3].max() <= height


def test_no_two_regions_of_a_level_overlap_by_0_7_or_more(make_maps, images):
    from torchvision.ops import box_iou

    with torch.no_grad():
        rpn = make_rpn().eval()
        regions, _ = rpn([feature if i == 2 else feature * 0 - 100 for i, feature in enumerate(make_maps())], images)
    overlaps = box_iou(regions[0], regions[0]).fill_diagonal_(0)
    # Boxes of different levels may repeat each other, so most pairs, not all.
    assert (overlaps < 0.7).float().mean() > 0.99


def test_at_most_as_many_regions_as_asked_for(make_maps, images):
    rpn = make_rpn(train_proposals=40, test_proposals=20)
    with torch.no_grad():
        assert [len(own) for own in rpn.train()(make_maps(), images)[0]] == [40, 40]
        assert [len(own) for own in rpn.eval()(make_maps(), images)[0]] == [20, 20]


def test_padding_proposes_nothing(make_maps, images):
    rpn = make_rpn().eval()
    with torch.no_grad():
        rpn.offsets.weight.zero_()
        rpn.offsets.bias.zero_()
        maps = make_maps()
        maps[0][0, :, :, 24:] = 50  # beyond the 96 pixels of the first image
        expected, _ = rpn(
            [feature[:1, :, :, : -(-96 // s)] for feature, s in zip(maps, STRIDES, strict=True)],
            images._replace(sizes=[(128, 96)]),
        )
    # The conv of a cell inside may read what lies outside only if it is not zero, which the neck sees to.
    cells = rpn.anchors.inside(maps, (128, 96))
    assert cells[0].view(32, 32, 3)[:, 24:].sum() == 0
    assert len(expected[0])


@pytest.mark.parametrize(("drops", "allowed"), [(False, True), (True, False)])
def test_anchors_that_leave_the_image_learn_unless_they_are_dropped(make_maps, images, drops, allowed):
    rpn = make_rpn(drops_leaving=drops)
    maps = make_maps()
    anchors = torch.cat(rpn.anchors(maps, images))
    chosen = anchors[rpn._allowed(maps, anchors, (128, 96))]
    assert bool((chosen[:, 0] < 0).any()) is allowed


def test_losses_are_those_of_a_loop(make_maps, images, targets):
    rpn = make_rpn(num_samples=10**6)
    maps = make_maps()
    _, losses = rpn(maps, images, [target["boxes"] for target in targets])
    class_loss, box_loss, count = 0.0, 0.0, 0
    for i, (size, target) in enumerate(zip(images.sizes, targets, strict=True)):
        scores, offsets, anchors = [], [], []
        for feature, stride in zip(maps, STRIDES, strict=True):
            hidden = torch.relu(rpn.conv(feature))[i]
            score, offset = rpn.objectness(hidden), rpn.offsets(hidden)
            for y in range(math.ceil(size[0] / stride)):
                for x in range(math.ceil(size[1] / stride)):
                    for a, ratio in enumerate((0.5, 1.0, 2.0)):
                        width, height = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
                        centre = x * stride, y * stride
                        anchors.append(
                            [
                                centre[0] - width / 2,
                                centre[1] - height / 2,
                                centre[0] + width / 2,
                                centre[1] + height / 2,
                            ]
                        )
                        scores.append(score[a, y, x])
                        offsets.append(offset[4 * a : 4 * a + 4, y, x])
        anchors = torch.tensor(anchors)
        overlaps = overlap(anchors, target["boxes"])
        assigned = torch.full((len(anchors),), -2)
        assigned[overlaps.amax(1) < 0.3] = -1
        best = overlaps.argmax(1)
        assigned = torch.where(overlaps.amax(1) >= 0.7, best, assigned)
        for number in range(overlaps.shape[1]):
            top = overlaps[:, number].max()
            if top >= 0.3:
                assigned[overlaps[:, number] == top] = number
        for score, offset, anchor, number in zip(scores, offsets, anchors, assigned.tolist(), strict=True):
            if number == -2:
                continue
            count += 1
            class_loss = class_loss + torch.nn.functional.softplus(-score if number >= 0 else score)
            if number >= 0:
                box_loss = box_loss + (offset - encoded(anchor, target["boxes"][number])).abs().sum()
    torch.testing.assert_close(losses["loss_rpn_cls"], class_loss / count, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_rpn_box"], box_loss / count, rtol=1e-4, atol=1e-5)


def overlap(anchors, boxes):
    low = torch.maximum(anchors[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(anchors[:, None, 2:], boxes[None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(own[:, 2:] - own[:, :2]).prod(1) for own in (anchors, boxes)]
    return both / (areas[0][:, None] + areas[1] - both)


def encoded(anchor, box):
    size, goal = anchor[2:] - anchor[:2], box[2:] - box[:2]
    shift = ((box[:2] + goal / 2) - (anchor[:2] + size / 2)) / size
    return torch.cat([shift, (goal / size).log()])


def test_without_objects_all_is_background(make_maps, images, no_targets):
    _, losses = make_rpn()(make_maps(), images, [target["boxes"] for target in no_targets])
    assert losses["loss_rpn_cls"] > 0
    assert losses["loss_rpn_box"] == 0
