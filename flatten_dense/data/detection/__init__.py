"""Detection data: images with boxes, masks and classes of objects."""

from flatten_dense.data.detection.coco import CocoDataModule
from flatten_dense.data.detection.voc import VocDataModule
from flatten_dense.data.detection.yolo import YoloDataModule

__all__ = ["CocoDataModule", "VocDataModule", "YoloDataModule"]
