from collections.abc import Callable
from functools import partial

import pytest
import torch

from flatten_dense.backbones import TimmBackbone
from flatten_dense.heads import SemanticFPNHead
from flatten_dense.necks import FPN
from flatten_dense.structures import LabelSpace, default_palette
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask


@pytest.fixture
def make_task() -> Callable[..., SemanticSegmentationTask]:
    """A task on the micro backbone; options replace the defaults."""

    def make(num_classes: int = 3, seed: int = 0, **options) -> SemanticSegmentationTask:
        torch.manual_seed(seed)
        names = tuple(f"class {index}" for index in range(num_classes))
        parts = {
            "backbone": TimmBackbone("flatten_pvt_test"),
            "neck": partial(FPN, out_channels=16),
            "head": partial(SemanticFPNHead, channels=16),
            "labels": LabelSpace(names, default_palette(num_classes)),
        }
        return SemanticSegmentationTask(**{**parts, **options})

    return make
