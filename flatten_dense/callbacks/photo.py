"""The photo behind a model's input, for callbacks that draw."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from flatten_dense.structures import InputFormat


def photo_of(image: Tensor, input_format: InputFormat, size: Sequence[int]) -> Tensor:
    """Undo the normalisation of an image ``[3, h, w]`` and bring it to another size: uint8 ``[3, H, W]``, on the CPU.

    Args:
        image: input of a model.
        input_format: how it was normalised.
        size: (H, W).
    """
    photo = input_format.normalization.undo(image)
    return F.interpolate(photo[None].float(), size=tuple(size), mode="bilinear", antialias=True)[0].round().byte().cpu()
