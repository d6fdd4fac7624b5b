import math

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead as TorchvisionHead
from torchvision.ops import box_iou

from flatten_dense.heads import RetinaNetHead
from flatten_dense.tasks.torchvision_weights import _rename

STRIDES = (8, 16, 32, 64, 128)


def make(**options):
    torch.manual_seed(0)
    return RetinaNetHead((16,) * 5, STRIDES, 3, **options)


@pytest.fixture
def maps(make_maps):
    return make_maps(strides=STRIDES)


def test_torchvisions_conventions_give_torchvisions_losses(make_maps, images, targets):
    torch.manual_seed(0)
    maps = make_maps(strides=STRIDES, clear=False)
    theirs, ours = TorchvisionHead(16, 9, 4), make(conventions="torchvision")
    for parameter in theirs.parameters():  # torchvision's first weights are for 256 channels
        nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict(
        {_rename(f"head.{name}").removeprefix("head."): tensor for name, tensor in theirs.state_dict().items()}
    )
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)(ImageList(images.tensor, images.sizes), maps)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    matched = [matcher(box_iou(t["boxes"], own)) for t, own in zip(targets, anchors, strict=True)]
    shifted = [{**target, "labels": target["labels"] + 1} for target in targets]
    expected = theirs.compute_loss(shifted, theirs(maps), anchors, matched)
    found = ours.loss(maps, images, targets)
    torch.testing.assert_close(found["loss_cls"], expected["classification"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["loss_box"], expected["bbox_regression"], rtol=1e-4, atol=1e-5)


def test_box_losses_are_those_of_a_loop(maps, images, targets):
    head = make()
    nn.init.normal_(head.boxes.weight)
    loss, count = 0.0, 0
    for i, (size, target) in enumerate(zip(images.sizes, targets, strict=True)):
        own = torch.cat(head.anchors.inside(maps, size))
        anchors = torch.cat(head.anchors(maps, images))[own]
        offsets = torch.cat([level[i] for _, level in head._outputs(maps, images)])[own]
        overlaps = box_iou(anchors, target["boxes"])
        matched = torch.where(overlaps.amax(1) >= 0.5, overlaps.argmax(1), -1)
        for number, column in enumerate(overlaps.T):
            matched[column == column.max()] = number
        for anchor, offset, number in zip(anchors, offsets, matched.tolist(), strict=True):
            if number >= 0:
                box, size_before = target["boxes"][number], anchor[2:] - anchor[:2]
                shift = (box[:2] + box[2:] - anchor[:2] - anchor[2:]) / 2 / size_before
                goal = torch.cat([shift, ((box[2:] - box[:2]) / size_before).log()])
                loss, count = loss + (offset - goal).abs().sum(), count + 1
    torch.testing.assert_close(head.loss(maps, images, targets)["loss_box"], loss / count, rtol=1e-4, atol=1e-5)


def test_class_losses_are_those_of_a_loop(maps, images, targets):
    head = make()
    nn.init.normal_(head.classes.weight)
    loss, count = 0.0, 0
    for i, (size, target) in enumerate(zip(images.sizes, targets, strict=True)):
        own = torch.cat(head.anchors.inside(maps, size))
        logits = torch.cat([level[i] for level, _ in head._outputs(maps, images)])[own]
        overlaps = box_iou(torch.cat(head.anchors(maps, images))[own], target["boxes"])
        matched = torch.where(overlaps.amax(1) >= 0.5, overlaps.argmax(1), -1)
        matched[(overlaps.amax(1) >= 0.4) & (matched < 0)] = -2
        for number, column in enumerate(overlaps.T):
            matched[column == column.max()] = number
        truth = torch.zeros_like(logits)
        truth[matched >= 0, target["labels"][matched[matched >= 0]]] = 1
        p = logits.sigmoid()
        each = torch.where(truth > 0, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * torch.log1p(-p))
        loss, count = loss + each[matched != -2].sum(), count + int((matched >= 0).sum())
    torch.testing.assert_close(head.loss(maps, images, targets)["loss_cls"], loss / count, rtol=1e-4, atol=1e-5)


def test_the_first_scores_are_the_prior(maps, images):
    (logits, _), *_ = make()._outputs(maps, images)
    assert float(logits.sigmoid().mean().detach()) == pytest.approx(0.01, abs=0.002)


def test_the_focal_loss_is_that_of_a_formula(maps, images, no_targets):
    head = make()
    loss = head.loss(maps, images, no_targets)["loss_cls"]
    expected = 0.0
    for level, (logits, _) in enumerate(head._outputs(maps, images)):
        for i, size in enumerate(images.sizes):
            p = logits[i][head.anchors.inside(maps, size)[level]].sigmoid()
            expected = expected + (0.75 * p**2 * -torch.log1p(-p)).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_nine_anchors_a_cell_of_three_sizes_an_octave(maps, images):
    first = make().anchors(maps, images)[0][:9]
    sides = (first[:, 2:] - first[:, :2]).prod(1).sqrt()
    assert sides.tolist() == pytest.approx([32 * 2 ** (i / 3) for i in range(3)] * 3, rel=1e-5)
    ratios = (first[:, 3] - first[:, 1]) / (first[:, 2] - first[:, 0])
    assert ratios.tolist() == pytest.approx([0.5] * 3 + [1] * 3 + [2] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "most"), [({}, 100), ({"conventions": "torchvision"}, 300), ({"detections": 7}, 7)]
)
def test_as_many_detections_as_conventions_or_options_say(maps, images, options, most):
    head = make(**options).eval()
    nn.init.zeros_(head.classes.bias)
    with torch.no_grad():
        found = head.predict(maps, images)
    assert max(len(own.boxes) for own in found) <= most
    assert len(found[0].boxes) >= min(most, 90)


def test_no_detection_lies_outside_its_image(maps, images):
    head = make().eval()
    nn.init.zeros_(head.classes.bias)
    nn.init.constant_(head.boxes.bias[::4], -30.0)  # thirty widths to the left
    with torch.no_grad():
        assert [len(own.boxes) for own in head.predict(maps, images)] == [0, 0]


def test_every_weight_learns_with_objects_and_without(maps, images, targets, no_targets):
    for own in (targets, no_targets):
        head = make()
        torch.stack(list(head.loss(maps, images, own).values())).sum().backward()
        assert [name for name, parameter in head.named_parameters() if parameter.grad is None] == []


def test_towers_may_be_narrower_than_the_maps():
    head = make(channels=8)
    assert [conv.out_channels for conv in head.class_tower] == [8] * 4


def test_the_bias_of_the_classes_is_the_prior():
    assert make().classes.bias.tolist() == pytest.approx([-math.log(99)] * 27, rel=1e-6)
