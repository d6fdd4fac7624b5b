"""Test-time augmentation: passes over an image at several scales, and mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from flatten_dense.inference.images import MirroredImage, WindowedImage
from flatten_dense.inference.options import Inference
from flatten_dense.inference.rows import resize_twice
from flatten_dense.inference.sliding_window import sliding_rows
from flatten_dense.inference.tiles import tiled_rows
from flatten_dense.inference.whole_image import whole_rows


def pass_rows(
    predict: Callable[[Tensor], Tensor], image: WindowedImage, size: tuple[int, int], inference: Inference
) -> list[Iterator[Tensor]]:
    """Logits of every pass over an image, brought back to its original size and the right way round.

    The passes' strips have equal heights, so that what they say of a pixel comes at the same time.

    Args:
        predict: images ``[1, 3, h, w]`` -> logits ``[1, K, any, any]``.
        image: normalised, at the size that scale 1 stands for.
        size: the original (H, W).
        inference: how the image is given to the model.

    Returns:
        For each pass strips ``[rows, K, W]``.

    Source: mmseg's multi-scale evaluation. Changed: scales resize the image that was resized for inference, not the
    original one.
    """
    mode = inference.mode_for(image.size)

    def one_pass(scale: float, mirrored: bool) -> Iterator[Tensor]:
        height, width = image.size
        scaled = image if scale == 1 else image.resized((round(height * scale) or 1, round(width * scale) or 1))
        seen = MirroredImage(scaled) if mirrored else scaled
        if mode == "slide":
            named = _naming(f"inference.window {inference.window}", predict)
            rows = sliding_rows(named, seen, inference.window, inference.stride)
        elif mode == "tiled" and max(seen.size) > inference.tile_size:
            named = _naming(f"inference.tile_size {inference.tile_size}", predict)
            rows = tiled_rows(named, seen, inference.tile_size, inference.overlap)
        else:
            named = predict if scale == 1 else _naming(f"inference.scales {scale:g}", predict)
            (rows,) = whole_rows(named, [seen.read(0, 0, *seen.size)])
        strips = resize_twice(rows, seen.size, size).strips
        return (strip.flip(-1) for strip in strips) if mirrored else strips

    return [one_pass(scale, mirrored) for scale, mirrored in inference.passes]


def _naming(option: str, predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``predict``, whose complaints about a size name the option that made it."""

    def named(images: Tensor) -> Tensor:
        try:
            return predict(images)
        except ValueError as error:
            height, width = images.shape[-2:]
            raise ValueError(f"{option} gives the model images of {width}x{height} pixels: {error}") from error

    return named
