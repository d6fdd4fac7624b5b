"""Weights of torchvision's detectors, for a task of torchvision's conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from flatten_dense.data.images import first_few
from flatten_dense.tasks.detection import DetectionTask

# Older state dicts lack the inner index of a convolution that has a norm and an activation of its own.
_RENAMED = (
    (r"backbone\.body\.", "backbone.body."),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?", r"neck.laterals.\1."),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?", r"neck.outputs.\1."),
    (r"backbone\.fpn\.extra_blocks\.p6\.", "neck.extras.0."),
    (r"backbone\.fpn\.extra_blocks\.p7\.", "neck.extras.1."),
    (r"rpn\.head\.conv\.(?:0\.0\.)?", "head.rpn.conv."),
    (r"rpn\.head\.cls_logits\.", "head.rpn.objectness."),
    (r"rpn\.head\.bbox_pred\.", "head.rpn.offsets."),
    (r"roi_heads\.box_head\.fc6\.", "head.box_head.fc1."),
    (r"roi_heads\.box_head\.fc7\.", "head.box_head.fc2."),
    (r"roi_heads\.box_predictor\.cls_score\.", "head.box_head.classes."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "head.box_head.boxes."),
    (r"roi_heads\.mask_head\.(\d)\.0\.", r"head.mask_head.convs.\1."),
    (r"roi_heads\.mask_predictor\.conv5_mask\.", "head.mask_head.upsample."),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", "head.mask_head.masks."),
    (r"head\.classification_head\.conv\.(\d)\.0\.", r"head.class_tower.\1."),
    (r"head\.classification_head\.cls_logits\.", "head.classes."),
    (r"head\.regression_head\.conv\.(\d)\.0\.", r"head.box_tower.\1."),
    (r"head\.regression_head\.bbox_reg\.", "head.boxes."),
)


def load_torchvision_detector(task: DetectionTask, state_dict: Mapping[str, Tensor]) -> None:
    """Load the state dict of a `maskrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn` or `retinanet_resnet50_fpn`.

    The task then finds what torchvision's model finds in the same input. It has torchvision's conventions, a timm
    ``resnet50`` as backbone, and one class less than the state dict, which counts the background; class index 0 is
    category 1 of torchvision's.

    Args:
        task: whose weights are replaced.
        state_dict: of the whole model.

    Raises:
        ValueError: the state dict does not fit the task.
    """
    if not task.head.conventions.background_first:
        raise ValueError("weights of torchvision need a head of torchvision's conventions: conventions='torchvision'")
    renamed = {_rename(name): tensor for name, tensor in state_dict.items()}
    own = task.state_dict()
    # Frozen batch norms do not count batches.
    missing = [name for name in own if name not in renamed and not name.endswith("num_batches_tracked")]
    unknown = [name for name in renamed if name not in own]
    different = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in renamed.items()
        if name in own and tensor.shape != own[name].shape
    ]
    faults = {"lacks": missing, "has beside them": unknown, "has in other shapes": different}
    if any(faults.values()):
        told = "; ".join(f"{verb} {len(names)} ({first_few(names)})" for verb, names in faults.items() if names)
        raise ValueError(
            f"the state dict does not fit this task: of the tensors needed it {told}. Backbone, neck, masks and the "
            "number of classes must be those of torchvision's model"
        )
    task.load_state_dict(renamed, strict=False)


def _rename(name: str) -> str:
    for pattern, new in _RENAMED:
        renamed, count = re.subn(f"^{pattern}", new, name)
        if count:
            return renamed
    return name
