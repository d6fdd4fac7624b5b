"""Parameters and multiply-accumulates of the paper's ADE20K models, counted without running them."""

from functools import cache

import pytest
import torch

from flatten_dense.backbones import TimmBackbone
from flatten_dense.heads import FCNHead, SemanticFPNHead, UPerHead
from flatten_dense.necks import FPN
from flatten_dense.profiling.complexity import count_macs, count_parameters
from flatten_dense.structures import LabelSpace, default_palette
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask

IMAGE = (1, 3, 512, 2048)
LABELS = LabelSpace(tuple(map(str, range(150))), default_palette(150))


@cache
def semantic_fpn(backbone: str, **options: str) -> SemanticSegmentationTask:
    with torch.device("meta"):
        return SemanticSegmentationTask(TimmBackbone(backbone, options=options), SemanticFPNHead, FPN, LABELS)


@cache
def upernet(backbone: str, **options: str) -> SemanticSegmentationTask:
    with torch.device("meta"):
        body = TimmBackbone(backbone, options=options)
        return SemanticSegmentationTask(body, UPerHead, labels=LABELS, auxiliary_head=FCNHead)


@pytest.mark.parametrize(
    ("model", "backbone", "millions"),
    [
        (semantic_fpn, "flatten_pvt_tiny", 15.90),
        (upernet, "flatten_swin_tiny", 60.85),
        (upernet, "flatten_swin_small", 82.16),
        (upernet, "flatten_swin_base", 122.48),
    ],
)
def test_parameters(model, backbone, millions):
    assert round(count_parameters(model(backbone)) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("model", "backbone", "billions"),
    [
        (semantic_fpn, "flatten_pvt_tiny", 128.3),
        # 943.3 and 1036.4 in code that pads windows before it projects queries, keys and values.
        (upernet, "flatten_swin_tiny", 939.2),
        (upernet, "flatten_swin_small", 1028.4),
    ],
)
def test_multiply_accumulates(model, backbone, billions):
    assert count_macs(model(backbone), IMAGE) / 1e9 == pytest.approx(billions, rel=0.001)


@pytest.mark.parametrize(
    ("backbone", "millions", "billions"),
    [("flatten_swin_tiny", 59.94, 945), ("flatten_swin_small", 81.26, 1038), ("flatten_swin_base", 121.28, None)],
)
def test_the_softmax_baselines(backbone, millions, billions):
    baseline = upernet(backbone, attention="SSSS")
    assert round(count_parameters(baseline) / 1e6, 2) == millions
    if billions is not None:
        assert count_macs(baseline, IMAGE) / 1e9 == pytest.approx(billions, rel=0.01)
