"""Masks of large TIFFs, written strip by strip."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from torch import Tensor

from flatten_dense.data.rasters import LargeTiff, damage_named, no_georeference_needed, open_tiff
from flatten_dense.structures import LabelSpace

_BLOCK = 512


class MaskTiff:
    """A mask written strip by strip beside its photo: tiled, compressed, with the photo's georeference.

    The values are the data set's own, with its colours beside them where its masks are colours; where the photo has no
    data the mask says "not labelled". The file gets its name when it is complete; an exception inside the `with` block
    leaves nothing of it.

    Args:
        path: the file to write.
        photo: what the mask is of.
        labels: how classes are written.
    """

    def __init__(self, path: Path, photo: LargeTiff, labels: LabelSpace) -> None:
        self.path = path
        self._draft = path.with_name(f".{path.name}.part")
        self._photo = photo
        self._labels = labels
        self._stack = contextlib.ExitStack()
        # One block of rows, filled again and again: rows kept one by one would scatter over the memory that strips of
        # logits come and go in, so that it grows.
        dtype = labels.to_disk(torch.zeros(1)).numpy().dtype
        self._rows: NDArray[np.integer] = np.empty((_BLOCK, photo.size[1]), dtype)
        self._filled = 0
        self._top = 0

    def __enter__(self) -> MaskTiff:
        with contextlib.ExitStack() as opening:
            opening.push(self)  # an opening that fails is cleaned up like a block that fails
            self._source = self._stack.enter_context(open_tiff(self._photo.path))
            height, width = self._photo.size
            has_gaps = self._source.nodata is not None
            with no_georeference_needed():
                target = rasterio.open(
                    self._draft,
                    "w",
                    driver="GTiff",
                    height=height,
                    width=width,
                    count=1,
                    dtype=str(self._rows.dtype),
                    crs=self._source.crs,
                    transform=self._source.transform,
                    nodata=self._unlabelled if has_gaps else None,
                    tiled=True,
                    blockxsize=_BLOCK,
                    blockysize=_BLOCK,
                    compress="deflate",
                    bigtiff="if_safer",
                )
            self._target = self._stack.enter_context(target)
            if self._labels.disk_palette is not None:
                self._target.write_colormap(1, dict(enumerate(self._labels.disk_palette)))
            opening.pop_all()
        return self

    def write(self, strip: Tensor) -> None:
        """Add class indices ``[rows, W]`` below those that are there."""
        values = self._labels.to_disk(strip).cpu().numpy()
        while len(values):
            fitting = values[: _BLOCK - self._filled]
            self._rows[self._filled : self._filled + len(fitting)] = fitting
            self._filled += len(fitting)
            values = values[len(fitting) :]
            if self._filled == _BLOCK:
                self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._stack:
                if kind is None and self._filled:
                    self._flush()
            if kind is None:
                self._draft.replace(self.path)
        finally:
            self._draft.unlink(missing_ok=True)

    @property
    def _unlabelled(self) -> int:
        return int(self._labels.to_disk(torch.tensor(self._labels.ignore_index)))

    def _flush(self) -> None:
        rows = self._rows[: self._filled]
        window = Window(0, self._top, rows.shape[1], len(rows))
        if self._source.nodata is not None:
            with damage_named(self._photo.path):
                has_data = self._source.dataset_mask(window=window) > 0
            rows[~has_data] = self._unlabelled
        self._target.write(rows, 1, window=window)
        self._top += len(rows)
        self._filled = 0


def read_mask_preview(path: Path, size: tuple[int, int], labels: LabelSpace) -> Tensor:
    """A mask written by :class:`MaskTiff` at another (height, width), nearest pixels: class indices ``[h, w]``."""
    with open_tiff(path) as dataset:
        values = torch.from_numpy(dataset.read(1, out_shape=size))
    return values.to(torch.int64) if labels.colour_masks else labels.from_disk(values)
