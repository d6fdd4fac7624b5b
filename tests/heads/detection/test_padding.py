"""What is found in an image does not depend on what it was batched with, through backbone, neck and head."""

from functools import partial

import pytest
import torch

from flatten_dense.backbones import TimmBackbone
from flatten_dense.heads import CascadeMaskRCNNHead, MaskRCNNHead, RetinaNetHead
from flatten_dense.necks import FPN, SimplePyramid
from flatten_dense.structures import DetectionLabels, default_palette
from flatten_dense.tasks.detection import DetectionTask

LABELS = DetectionLabels(("a", "b", "c"), default_palette(3), (1, 2, 3))
SIZES = [(97, 64), (64, 150), (128, 128)]
SLIM = {"fc_channels": 32, "test_proposals": 100}
HEADS = {
    "RetinaNet": RetinaNetHead,
    "Faster R-CNN": partial(MaskRCNNHead, masks=False, **SLIM),
    "Mask R-CNN": partial(MaskRCNNHead, **SLIM),
    "Cascade R-CNN": partial(CascadeMaskRCNNHead, masks=False, num_convs=1, **SLIM),
    "Cascade Mask R-CNN": partial(CascadeMaskRCNNHead, num_convs=1, **SLIM),
}
NECKS = {
    True: (
        partial(FPN, out_channels=32, start_level=1, extra_levels=2, extra="conv_input"),
        partial(SimplePyramid, out_channels=32, doublings=1, halvings=3),
    ),
    False: (partial(FPN, out_channels=32, extra_levels=1), partial(SimplePyramid, out_channels=32, halvings=2)),
}


def make_detector(head: str, family: str) -> DetectionTask:
    """With weights at which many boxes have scores far from 0 and 1, and every bias counts."""
    torch.manual_seed(0)
    pyramid, plain = NECKS[head == "RetinaNet"]
    task = DetectionTask(
        TimmBackbone(f"flatten_{family}_test"), HEADS[head], plain if family == "deit" else pyramid, LABELS
    )
    with torch.no_grad():
        for parameter in [*task.neck.parameters(), *task.head.parameters()]:
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.4 / parameter[0].numel() ** 0.5)
            else:
                torch.nn.init.normal_(parameter, std=0.1)
    return task.eval()


@pytest.mark.parametrize("family", ["pvt", "pvt_v2", "swin", "cswin", "deit"])
@pytest.mark.parametrize("head", HEADS)
def test_an_image_gets_in_a_batch_what_it_gets_alone(head, family, same_objects):
    task = make_detector(head, family)
    images = [torch.randn(3, *size) for size in SIZES]
    with torch.inference_mode():
        together = task(images, SIZES)
        apart = [task([image], [size])[0] for image, size in zip(images, SIZES, strict=True)]
    for found, alone in zip(together, apart, strict=True):
        assert len(alone.boxes) >= 10
        order = same_objects(alone.boxes, alone.labels, found.boxes, found.labels)
        torch.testing.assert_close(found.boxes[order], alone.boxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.scores[order], alone.scores, rtol=0, atol=1e-4)
        assert found.masks is None or [found.masks[i] for i in order.tolist()] == alone.masks


def test_without_the_mask_it_depends_on_the_batch():
    task = make_detector("RetinaNet", "pvt_v2")
    task.padding_mask = False
    images = [torch.randn(3, *size) for size in SIZES]
    with torch.inference_mode():
        (alone,), (found, *_) = task(images[:1], SIZES[:1]), task(images, SIZES)
    assert len(found.boxes) != len(alone.boxes) or not torch.allclose(found.boxes, alone.boxes, atol=1e-3)
