"""All heads in 16-bit precision, and with numbers that are none."""

from functools import partial

import pytest
import torch
from torch import nn

from flatten_dense.heads import CascadeMaskRCNNHead, MaskRCNNHead, RetinaNetHead

STRIDES = (4, 8, 16, 32, 64)
SLIM = {"fc_channels": 8, "train_proposals": 50, "test_proposals": 50}
HEADS = {
    "RetinaNet": partial(RetinaNetHead, (16,) * 5, tuple(2 * stride for stride in STRIDES), 3),
    "Mask R-CNN": partial(MaskRCNNHead, (16,) * 5, STRIDES, 3, **SLIM),
    "torchvision's Mask R-CNN": partial(MaskRCNNHead, (16,) * 5, STRIDES, 3, conventions="torchvision", **SLIM),
    "Cascade Mask R-CNN": partial(CascadeMaskRCNNHead, (16,) * 5, STRIDES, 3, num_convs=1, **SLIM),
}


@pytest.fixture(params=HEADS)
def head(request):
    torch.manual_seed(0)
    head = HEADS[request.param]()
    for parameter in head.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return head


@pytest.fixture
def own_maps(head, make_maps):
    return make_maps(strides=head.strides)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_and_gradients_are_finite(head, own_maps, images, targets, dtype):
    with torch.autocast("cpu", dtype):
        losses = head.loss([feature.to(dtype) for feature in own_maps], images, targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("fault", ["features", "boxes"])
def test_what_is_no_number_shows_in_the_losses_and_is_never_found(head, own_maps, images, targets, fault):
    if fault == "features":
        own_maps = [feature * torch.nan for feature in own_maps]
    else:
        for name, parameter in head.named_parameters():
            if "boxes" in name:
                nn.init.constant_(parameter, torch.nan)
    losses = head.loss(own_maps, images, targets)
    assert not all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        assert [len(own.boxes) for own in head.eval().predict(own_maps, images)] == [0, 0]
