import math

import pytest
import torch
from torch import nn

from flatten_dense.heads.detection.conventions import CONVENTIONS
from flatten_dense.heads.detection.rpn import RegionProposalNetwork

STRIDES = (4, 8, 16, 32, 64)


def make_rpn(strides=STRIDES, **options):
    torch.manual_seed(0)
    rpn = RegionProposalNetwork(16, strides, CONVENTIONS["mmdet"], **options)
    for conv in (rpn.objectness, rpn.offsets):
        nn.init.normal_(conv.weight, std=0.3)
    return rpn


def test_regions_lie_in_their_own_image(make_maps, images):
    with torch.no_grad():
        regions, _ = make_rpn().eval()(make_maps(), images)
    for own, (height, width) in zip(regions, images.sizes, strict=True):
        assert len(own) > 50
        assert own.min() >= 0
        assert own[:, 2].max() <= width
        assert own[:, 3].max() <= height


def test_no_two_regions_of_a_level_overlap_by_more_than_0_7(make_maps, images):
    with torch.no_grad():
        regions, _ = make_rpn(strides=(8,)).eval()(make_maps(strides=(8,)), images)
    overlaps = overlap(regions[0], regions[0]).fill_diagonal_(0)
    assert 0.6 < overlaps.max() <= 0.7


def test_at_most_as_many_regions_as_asked_for(make_maps, images):
    rpn = make_rpn(train_proposals=40, test_proposals=20)
    with torch.no_grad():
        assert [len(own) for own in rpn.train()(make_maps(), images)[0]] == [40, 40]
        assert [len(own) for own in rpn.eval()(make_maps(), images)[0]] == [20, 20]


def test_padding_proposes_nothing(make_maps, images):
    rpn = make_rpn().eval()
    maps = make_maps(clear=False)
    with torch.no_grad():
        rpn.conv.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0  # no cell reads another
        for feature, stride in zip(maps, STRIDES, strict=True):
            feature[0, :, :, -(-96 // stride) :] *= 50
        together, _ = rpn(maps, images)
        own = [feature[:1, :, :, : -(-96 // stride)] for feature, stride in zip(maps, STRIDES, strict=True)]
        alone, _ = rpn(own, images._replace(sizes=[(128, 96)]))
    torch.testing.assert_close(together[0], alone[0])


@pytest.mark.parametrize("drops", [False, True])
def test_anchors_that_leave_the_image_learn_unless_they_are_dropped(make_maps, images, drops):
    rpn = make_rpn(drops_leaving=drops)
    maps = make_maps()
    anchors = torch.cat(rpn.anchors(maps, images))
    own = torch.cat(rpn.anchors.inside(maps, (100, 128)))
    within = (anchors >= 0).all(1) & (anchors[:, 2] < 128) & (anchors[:, 3] < 100)
    expected = own & within if drops else own
    assert 0 < (own & within).sum() < own.sum()
    assert torch.equal(rpn._allowed(maps, anchors, (100, 128)), expected.nonzero()[:, 0])


def test_half_of_the_anchors_that_a_step_learns_from_stand_for_objects(make_maps, images, targets):
    rpn = make_rpn(num_samples=4)
    nn.init.zeros_(rpn.objectness.weight)
    nn.init.constant_(rpn.objectness.bias, 2.0)
    _, losses = rpn(make_maps(), images, [target["boxes"] for target in targets])
    expected = (math.log1p(math.exp(2)) + math.log1p(math.exp(-2))) / 2
    assert float(losses["loss_rpn_cls"].detach()) == pytest.approx(expected, rel=1e-5)


def test_regions_carry_no_gradient(make_maps, images, targets):
    regions, _ = make_rpn()(make_maps(), images, [target["boxes"] for target in targets])
    assert not any(own.requires_grad for own in regions)


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
                        left, top = x * stride - width / 2, y * stride - height / 2
                        anchors.append([left, top, left + width, top + height])
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
            class_loss = class_loss + nn.functional.softplus(-score if number >= 0 else score)
            if number >= 0:
                box_loss = box_loss + (offset - encoded(anchor, target["boxes"][number])).abs().sum()
    torch.testing.assert_close(losses["loss_rpn_cls"], class_loss / count, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_rpn_box"], box_loss / count, rtol=1e-4, atol=1e-5)


def test_without_objects_all_is_background(make_maps, images, no_targets):
    _, losses = make_rpn()(make_maps(), images, [target["boxes"] for target in no_targets])
    assert losses["loss_rpn_cls"] > 0
    assert losses["loss_rpn_box"] == 0


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
