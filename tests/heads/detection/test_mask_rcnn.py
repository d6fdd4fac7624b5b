from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from flatten_dense.heads import MaskRCNNHead
from flatten_dense.heads.detection import mask_rcnn
from flatten_dense.tasks.torchvision_weights import _rename

STRIDES = (4, 8, 16, 32, 64)
EVERY = 10**6  # more than there are, so that nothing is drawn


CHANNELS = 256  # torchvision's mask head has as many, whatever the maps have


class NoBackbone(nn.Module):
    out_channels = CHANNELS


def make_pair(masks):
    """torchvision's two stages, and ours with the same weights."""
    torch.manual_seed(0)
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5)
    theirs = (MaskRCNN if masks else FasterRCNN)(NoBackbone(), 4, rpn_anchor_generator=anchors)
    theirs.rpn.fg_bg_sampler.batch_size_per_image = theirs.roi_heads.fg_bg_sampler.batch_size_per_image = EVERY
    ours = MaskRCNNHead(
        (CHANNELS,) * 5, STRIDES, 3, conventions="torchvision", masks=masks, rpn_samples=EVERY, roi_samples=EVERY
    )
    ours.load_state_dict({_rename(name).removeprefix("head."): tensor for name, tensor in theirs.state_dict().items()})
    return theirs, ours


def named(maps):
    return OrderedDict(zip(("0", "1", "2", "3", "pool"), maps, strict=True))


@pytest.mark.parametrize("masks", [True, False])
def test_torchvisions_conventions_give_torchvisions_losses(make_maps, images, targets, masks):
    theirs, ours = make_pair(masks)
    maps = make_maps(CHANNELS, clear=False)
    image_list = ImageList(images.tensor, images.sizes)
    shifted = [{**target, "labels": target["labels"] + 1, "masks": target["masks"].byte()} for target in targets]
    proposals, expected = theirs.rpn(image_list, named(maps), shifted)
    torch.manual_seed(0)
    _, second = theirs.roi_heads(named(maps), proposals, images.sizes, shifted)
    torch.manual_seed(0)
    found = ours.loss(maps, images, targets)
    names = {
        "loss_rpn_cls": expected["loss_objectness"],
        "loss_rpn_box": expected["loss_rpn_box_reg"],
        "loss_cls": second["loss_classifier"],
        "loss_box": second["loss_box_reg"],
        **({"loss_mask": second["loss_mask"]} if masks else {}),
    }
    assert set(found) == set(names)
    for name, value in names.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


make = partial(MaskRCNNHead, (16,) * 5, STRIDES, 3, fc_channels=8, train_proposals=50, test_proposals=50)


def test_every_weight_learns_with_objects_and_without(make_maps, images, targets, no_targets):
    for own in (targets, no_targets):
        head = make()
        torch.stack(list(head.loss(make_maps(), images, own).values())).sum().backward()
        assert [name for name, parameter in head.named_parameters() if parameter.grad is None] == []


def test_box_losses_are_l1_over_all_sampled_regions(make_maps, images, targets):
    torch.manual_seed(0)
    head = make(roi_samples=EVERY).train()
    maps = make_maps()
    seen = {}
    original = head.box_head.forward

    def spy(own_maps, regions):
        seen["regions"] = regions
        seen["out"] = original(own_maps, regions)
        return seen["out"]

    head.box_head.forward = spy
    losses = head.loss(maps, images, targets)
    logits, offsets = seen["out"]
    class_loss, box_loss, row = 0.0, 0.0, 0
    for regions, target in zip(seen["regions"], targets, strict=True):
        for region in regions:
            overlaps = [overlap(region, box) for box in target["boxes"]]
            best = max(range(len(overlaps)), key=lambda i: overlaps[i])
            label = int(target["labels"][best]) if overlaps[best] >= 0.5 else 3
            class_loss = class_loss - logits[row].log_softmax(0)[label]
            if label < 3:
                goal = target["boxes"][best]
                size, goal_size = region[2:] - region[:2], goal[2:] - goal[:2]
                shift = (goal[:2] + goal_size / 2 - region[:2] - size / 2) / size
                truth = torch.cat([10 * shift, 5 * (goal_size / size).log()])
                box_loss = box_loss + (offsets[row, label] - truth).abs().sum()
            row += 1
    torch.testing.assert_close(losses["loss_cls"], class_loss / row, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_box"], box_loss / row, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conventions", ["mmdet", "torchvision"])
def test_only_mmdet_gives_an_object_its_best_region_from_another(conventions, make_maps, images, targets, monkeypatch):
    head = make(conventions=conventions)
    asked = []
    original = mask_rcnn.sample_regions
    monkeypatch.setattr(mask_rcnn, "sample_regions", lambda *args: asked.append(args[3:]) or original(*args))
    head.loss(make_maps(), images, targets)
    assert asked == [(0.5, 512, conventions == "mmdet")]


def overlap(a, b):
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    both = (high - low).clamp(min=0).prod()
    return float(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both))


def test_detections_are_the_best_of_an_image_inside_of_it(make_maps, images):
    torch.manual_seed(0)
    head = make(detections=7).eval()
    nn.init.normal_(head.box_head.classes.weight)
    with torch.no_grad():
        found = head.predict(make_maps(), images)
    for own, (height, width) in zip(found, images.sizes, strict=True):
        assert len(own.boxes) == 7
        assert own.scores.tolist() == sorted(own.scores.tolist(), reverse=True)
        assert own.boxes.min() >= 0
        assert (own.boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert own.masks.shape == (7, 28, 28)


def test_masks_are_those_of_the_classes_found(make_maps, images):
    torch.manual_seed(0)
    head = make(detections=20).eval()
    nn.init.normal_(head.box_head.classes.weight)
    nn.init.zeros_(head.mask_head.masks.weight)
    with torch.no_grad():
        head.mask_head.masks.bias.copy_(torch.tensor([-1.0, 0, 1]))
        found = head.predict(make_maps(), images)
    labels, masks = (torch.cat([getattr(own, name) for own in found]) for name in ("labels", "masks"))
    assert len(labels.unique()) > 1
    torch.testing.assert_close(masks, (labels - 1.0).sigmoid()[:, None, None].expand(-1, 28, 28))


def test_without_masks_there_are_none(make_maps, images):
    head = make(masks=False).eval()
    with torch.no_grad():
        assert all(own.masks is None for own in head.predict(make_maps(), images))


def test_images_where_nothing_is_found(make_maps, images):
    head = make().eval()
    nn.init.constant_(head.box_head.classes.bias[3:], 100.0)
    with torch.no_grad():
        found = head.predict(make_maps(), images)
    assert [own.masks.shape for own in found] == [(0, 28, 28)] * 2
