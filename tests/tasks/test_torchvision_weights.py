"""torchvision's detectors with random weights, and ours with the same ones, in the same images."""

from functools import partial

import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.models import detection

from flatten_dense.backbones import TimmBackbone
from flatten_dense.heads import MaskRCNNHead, RetinaNetHead
from flatten_dense.necks import FPN
from flatten_dense.structures import DetectionLabels, default_palette
from flatten_dense.tasks.detection import DetectionTask
from flatten_dense.tasks.torchvision_weights import load_torchvision_detector

K = 7
LABELS = DetectionLabels(tuple("abcdefg"), default_palette(K), tuple(range(1, K + 1)))
SIZES = [(96, 128), (128, 64)]
OURS = {
    "maskrcnn": (partial(MaskRCNNHead, conventions="torchvision"), partial(FPN, extra_levels=1)),
    "fasterrcnn": (partial(MaskRCNNHead, conventions="torchvision", masks=False), partial(FPN, extra_levels=1)),
    "retinanet": (
        partial(RetinaNetHead, conventions="torchvision"),
        partial(FPN, start_level=1, extra_levels=2, extra="conv_output_relu"),
    ),
}


def make_theirs(name):
    torch.manual_seed(0)
    build = getattr(detection, f"{name}_resnet50_fpn")
    model = build(weights=None, weights_backbone=None, num_classes=K + 1).eval()
    model.transform.resize = lambda image, target: (image, target)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "cls_score" in parameter_name:
                parameter.mul_(2)
            if parameter_name.endswith("cls_logits.weight"):
                parameter.mul_(5)
            if "classification_head.cls_logits.bias" in parameter_name:
                parameter.fill_(-3).view(9, K + 1)[:, 0] = -50  # its scores of the background, which nobody reads
    return model


@pytest.fixture(scope="module")
def faster_rcnn():
    """The state dict of a model without masks."""
    return make_theirs("fasterrcnn").state_dict()


def make_ours(name, labels=LABELS):
    return DetectionTask(TimmBackbone("resnet50"), *OURS[name], labels).eval()


@pytest.mark.parametrize("name", OURS)
def test_ours_finds_what_torchvisions_finds(name, same_objects):
    theirs, ours = make_theirs(name), make_ours(name)
    load_torchvision_detector(ours, theirs.state_dict())
    images = [torch.rand(3, *size) for size in SIZES]
    normalized = [theirs.transform.normalize(image) for image in images]
    with torch.inference_mode():
        expected, found = theirs(images), ours(normalized, SIZES)
    for theirs_found, own in zip(expected, found, strict=True):
        assert len(own.boxes) >= 50
        order = same_objects(theirs_found["boxes"], theirs_found["labels"] - 1, own.boxes, own.labels)
        torch.testing.assert_close(own.boxes[order], theirs_found["boxes"])
        torch.testing.assert_close(own.scores[order], theirs_found["scores"])
        if name == "maskrcnn":
            masks = torch.stack([torch.from_numpy(coco_mask.decode(rle)) for rle in own.masks]).bool()
            assert torch.equal(masks[order], theirs_found["masks"][:, 0] >= 0.5)


def test_older_state_dicts_without_inner_indices_load_too(faster_rcnn):
    ours = make_ours("fasterrcnn")
    older = {
        name.replace("_blocks.0.0.", "_blocks.0.").replace("conv.0.0.", "conv."): tensor
        for name, tensor in faster_rcnn.items()
    }
    load_torchvision_detector(ours, older)
    assert torch.equal(ours.neck.laterals[0].weight, faster_rcnn["backbone.fpn.inner_blocks.0.0.weight"])
    assert torch.equal(ours.head.rpn.conv.weight, faster_rcnn["rpn.head.conv.0.0.weight"])


def test_frozen_batch_norms_count_no_batches(faster_rcnn):
    ours = make_ours("fasterrcnn")
    load_torchvision_detector(
        ours, {name: tensor for name, tensor in faster_rcnn.items() if not name.endswith("num_batches_tracked")}
    )
    assert torch.equal(ours.backbone.state_dict()["body.bn1.running_var"], faster_rcnn["backbone.body.bn1.running_var"])


def test_another_number_of_classes_is_refused(faster_rcnn):
    labels = DetectionLabels(("a",), default_palette(1), (1,))
    with pytest.raises(ValueError, match=r"has in other shapes .*head\.box_head\.classes\.weight \(8, 1024\)"):
        load_torchvision_detector(make_ours("fasterrcnn", labels), faster_rcnn)


def test_weights_without_masks_are_refused_by_a_head_with_masks(faster_rcnn):
    with pytest.raises(ValueError, match=r"lacks \d+ \(head\.mask_head"):
        load_torchvision_detector(make_ours("maskrcnn"), faster_rcnn)


def test_weights_that_the_task_has_no_place_for_are_refused(faster_rcnn):
    with pytest.raises(ValueError, match=r"has beside them 1 \(head\.mask_head\.masks\.bias\)"):
        load_torchvision_detector(
            make_ours("fasterrcnn"), faster_rcnn | {"roi_heads.mask_predictor.mask_fcn_logits.bias": torch.zeros(8)}
        )


def test_mmdets_conventions_are_refused():
    task = DetectionTask(TimmBackbone("resnet18"), RetinaNetHead, OURS["retinanet"][1], LABELS)
    with pytest.raises(ValueError, match="conventions='torchvision'"):
        load_torchvision_detector(task, {})
