"""From images of any size to masks at their own size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from flatten_dense.inference.augmentation import pass_rows
from flatten_dense.inference.images import TensorImage, WindowedImage
from flatten_dense.inference.options import Inference
from flatten_dense.inference.rows import resize_twice
from flatten_dense.inference.whole_image import whole_rows


@torch.no_grad()
def segment_strips(
    predict: Callable[[Tensor], Tensor],
    image: WindowedImage,
    size: tuple[int, int],
    inference: Inference = Inference(),  # noqa: B008 - frozen
) -> Iterator[Tensor]:
    """The most likely class of each pixel of one image, from top to bottom, while the model runs.

    Logits are resized to the input's size and then to the original one, bilinearly and in float32, a strip at a time.

    Args:
        predict: images ``[1, 3, h, w]`` -> logits ``[1, K, any, any]``, in evaluation mode.
        image: normalised and resized for inference.
        size: the original (H, W).
        inference: how the image is given to the model.

    Yields:
        int64 ``[rows, W]``; the heights sum up to H.
    """
    passes = pass_rows(predict, image, size, inference)
    if len(passes) == 1:
        for strip in passes[0]:
            yield strip.max(dim=1).indices
        return
    for strips in zip(*passes, strict=True):
        total = torch.zeros_like(strips[0])
        for strip in strips:
            total += strip.softmax(dim=1)
        yield total.max(dim=1).indices


@torch.no_grad()
def segment_batch(
    predict: Callable[[Tensor], Tensor],
    images: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    inference: Inference = Inference(),  # noqa: B008 - frozen
) -> list[Tensor]:
    """Segment images of any sizes, each as if it were alone.

    Images of equal size share a forward pass where they are taken as a whole; nothing is ever padded, so no result
    depends on its neighbours.

    Args:
        predict: images ``[B, 3, h, w]`` -> logits ``[B, K, any, any]``, in evaluation mode.
        images: normalised and resized for inference, each ``[3, h, w]``.
        sizes: the original (H, W) of each.
        inference: how images are given to the model.

    Returns:
        One int64 mask ``[H, W]`` per image, in the given order.

    Raises:
        ValueError: if there are not as many sizes as images.
    """
    if len(images) != len(sizes):
        raise ValueError(f"got {len(images)} images but {len(sizes)} original sizes")
    masks: dict[int, Tensor] = {}
    same_size: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        input_size = (image.shape[-2], image.shape[-1])
        if inference.mode_for(input_size) == "whole" and inference.passes == [(1.0, False)]:
            same_size.setdefault(input_size, []).append(index)
        else:
            strips = segment_strips(predict, TensorImage(image), sizes[index], inference)
            masks[index] = _joined(strips, sizes[index])
    for input_size, indices in same_size.items():
        for index, rows in zip(indices, whole_rows(predict, [images[index] for index in indices]), strict=True):
            logits = resize_twice(rows, input_size, sizes[index]).strips
            masks[index] = _joined((strip.max(dim=1).indices for strip in logits), sizes[index])
    return [masks[index] for index in range(len(images))]


def _joined(strips: Iterator[Tensor], size: tuple[int, int]) -> Tensor:
    # Into one tensor made first: strips kept one by one would scatter over the memory that logits come and go in.
    first = next(strips)
    mask = first.new_empty(size)
    top = 0
    for strip in itertools.chain([first], strips):
        mask[top : top + len(strip)] = strip
        top += len(strip)
    return mask
