"""From images to masks: pure functions over any callable that maps images to logits."""

from flatten_dense.inference.images import TensorImage, WindowedImage
from flatten_dense.inference.modes_used import ModesUsed
from flatten_dense.inference.options import Inference
from flatten_dense.inference.segment import segment_batch, segment_strips

__all__ = ["Inference", "ModesUsed", "TensorImage", "WindowedImage", "segment_batch", "segment_strips"]
