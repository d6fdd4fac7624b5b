import math

import pytest
import torch
from torch import nn

from flatten_dense.heads import MaskRCNNHead, RetinaNetHead
from flatten_dense.heads.detection.base import init_conv


@pytest.mark.parametrize(
    ("in_channels", "strides"), [((16, 32), (8, 16)), ((16, 16), (16, 16)), ((16, 16, 16), (4, 8, 32))]
)
def test_levels_that_no_neck_has_made_are_refused(in_channels, strides):
    with pytest.raises(ValueError, match=r"--model\.neck flatten_dense\.necks\.FPN"):
        RetinaNetHead(in_channels, strides, 3)


def test_as_many_strides_as_channels():
    with pytest.raises(ValueError, match="one stride per level"):
        RetinaNetHead((16, 16), (8,), 3)


def test_a_head_needs_a_class():
    with pytest.raises(ValueError, match="at least one class, got num_classes=0"):
        MaskRCNNHead((16, 16), (4, 8), 0)


def test_unknown_conventions_are_refused():
    with pytest.raises(ValueError, match="conventions must be one of"):
        RetinaNetHead((16, 16), (8, 16), 3, conventions="keras")


def test_what_can_be_evaluated_depends_on_the_masks():
    assert MaskRCNNHead((16, 16), (4, 8), 3).iou_types == ("bbox", "segm")
    assert MaskRCNNHead((16, 16), (4, 8), 3, masks=False).iou_types == ("bbox",)


@pytest.mark.parametrize("channels", [256, 64])
def test_dense_layers_keep_the_gain_that_is_published_for_256_channels(channels):
    torch.manual_seed(0)
    conv = init_conv(nn.Conv2d(channels, 256, 3), bias=-2.0)
    gain = float(conv.weight.detach().std()) * math.sqrt(channels * 9)
    assert gain == pytest.approx(0.01 * math.sqrt(256 * 9), rel=0.01)
    assert set(conv.bias.tolist()) == {-2.0}
