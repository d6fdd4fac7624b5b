"""What the floors hand to one another: the meaning of labels, the scale of pixels, padded batches, detections."""

from flatten_dense.structures.colours import Colour, default_palette, pack_colour, unpack_colour, vivid_palette
from flatten_dense.structures.detections import RLE, Detections
from flatten_dense.structures.images import ImageBatch, InputFormat, Normalization, pad_images
from flatten_dense.structures.labels import ClassLabels, DetectionLabels, Labels, LabelSpace

__all__ = [
    "RLE",
    "ClassLabels",
    "Colour",
    "DetectionLabels",
    "Detections",
    "ImageBatch",
    "InputFormat",
    "LabelSpace",
    "Labels",
    "Normalization",
    "default_palette",
    "pack_colour",
    "pad_images",
    "unpack_colour",
    "vivid_palette",
]
