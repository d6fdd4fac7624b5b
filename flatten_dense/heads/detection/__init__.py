"""Detection heads: feature maps in; losses, or boxes and masks, out."""

from flatten_dense.heads.detection.base import DetectionHead, RawDetections
from flatten_dense.heads.detection.cascade_mask_rcnn import CascadeMaskRCNNHead
from flatten_dense.heads.detection.mask_rcnn import MaskRCNNHead
from flatten_dense.heads.detection.retinanet import RetinaNetHead

__all__ = ["CascadeMaskRCNNHead", "DetectionHead", "MaskRCNNHead", "RawDetections", "RetinaNetHead"]
