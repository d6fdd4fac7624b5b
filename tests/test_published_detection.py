"""Parameters and multiply-accumulates of the paper's COCO models, counted without running them."""

from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

from flatten_dense.backbones import TimmBackbone
from flatten_dense.heads import CascadeMaskRCNNHead, MaskRCNNHead, RetinaNetHead
from flatten_dense.heads.detection.rpn import RegionProposalNetwork
from flatten_dense.necks import FPN
from flatten_dense.profiling.complexity import count_macs, count_parameters
from flatten_dense.structures import DetectionLabels, default_palette
from flatten_dense.tasks.detection import DetectionTask

IMAGE = (1, 3, 800, 1280)
LABELS = DetectionLabels(tuple(map(str, range(80))), default_palette(80), tuple(range(1, 81)))
HEADS = {
    "RetinaNet": (RetinaNetHead, partial(FPN, start_level=1, extra_levels=2, extra="conv_input")),
    "Mask R-CNN": (MaskRCNNHead, partial(FPN, extra_levels=1)),
    "Cascade Mask R-CNN": (CascadeMaskRCNNHead, partial(FPN, extra_levels=1)),
}


@cache
def detector(head: str, backbone: str) -> DetectionTask:
    with torch.device("meta"):
        return DetectionTask(TimmBackbone(backbone), *HEADS[head], LABELS)


class DummyRegions(nn.Module):
    """As many regions as the rule of the published figures has, whatever is proposed."""

    def __init__(self, number: int, size: int) -> None:
        super().__init__()
        self.number, self.size = number, size

    def forward(self, maps: list[Tensor], regions: object) -> Tensor:
        return maps[0].new_empty(self.number, maps[0].shape[1], self.size, self.size)


class DenseParts(nn.Module):
    """All that has multiply-accumulates: 1000 regions in every box head, 100 in every mask head."""

    def __init__(self, task: DetectionTask) -> None:
        super().__init__()
        self.task = task
        head = task.head
        self.rpn: RegionProposalNetwork = head.rpn
        self.box_heads = head.box_heads if hasattr(head, "box_heads") else [head.box_head]
        self.mask_heads = head.mask_heads if hasattr(head, "mask_heads") else [head.mask_head]
        for box_head in self.box_heads:
            box_head.features = DummyRegions(1000, 7)
        for mask_head in self.mask_heads:
            mask_head.features = DummyRegions(100, 14)

    def forward(self, images: Tensor) -> None:
        maps = self.task.features(images)
        for feature in maps:
            hidden = self.rpn.conv(feature)
            self.rpn.objectness(hidden), self.rpn.offsets(hidden)
        for head in [*self.box_heads, *self.mask_heads]:
            head(maps, None)


@pytest.mark.parametrize(
    ("head", "backbone", "millions"),
    [
        ("Mask R-CNN", "flatten_pvt_tiny", 31.80),
        ("Mask R-CNN", "flatten_swin_tiny", 48.70),
        ("Cascade Mask R-CNN", "flatten_swin_tiny", 86.53),
        ("Cascade Mask R-CNN", "flatten_swin_small", 107.85),
        ("RetinaNet", "flatten_pvt_tiny", 21.89),
        ("RetinaNet", "flatten_pvt_small", 31.41),
    ],
)
def test_parameters(head, backbone, millions):
    assert round(count_parameters(detector(head, backbone)) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("part", "parameters"),
    [("rpn", 593_935), ("box_head", 14_306_705), ("mask_head", 2_643_280)],
)
def test_parameters_of_the_parts_of_mask_rcnn(part, parameters):
    assert count_parameters(getattr(detector("Mask R-CNN", "flatten_swin_tiny").head, part)) == parameters


def test_parameters_of_the_cascades_box_head():
    head = detector("Cascade Mask R-CNN", "flatten_swin_tiny").head
    assert [count_parameters(own) for own in head.box_heads] == [15_618_449] * 3


@pytest.mark.parametrize(
    ("head", "backbone", "parameters"),
    [("Mask R-CNN", "flatten_swin_tiny", 2_729_984), ("RetinaNet", "flatten_pvt_tiny", 3_786_752)],
)
def test_parameters_of_the_neck(head, backbone, parameters):
    assert count_parameters(detector(head, backbone).neck) == parameters


@pytest.mark.parametrize(
    ("head", "backbone", "billions"),
    [
        # 266.0, 744.2 and 836.3 in code that pads windows before it projects queries, keys and values.
        ("Mask R-CNN", "flatten_swin_tiny", 262.7),
        ("Cascade Mask R-CNN", "flatten_swin_tiny", 740.9),
        ("Cascade Mask R-CNN", "flatten_swin_small", 828.0),
    ],
)
def test_multiply_accumulates(head, backbone, billions):
    with torch.device("meta"):
        task = DetectionTask(TimmBackbone(backbone), *HEADS[head], LABELS)
    assert count_macs(DenseParts(task), IMAGE) / 1e9 == pytest.approx(billions, rel=0.001)
