"""Large TIFFs, read window by window: none of them is ever decoded as a whole."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window
from torch import Tensor

from flatten_dense.data.images import TO_TILED_TIFF, DataError
from flatten_dense.data.transforms import EvalTransform, resized_size
from flatten_dense.structures import InputFormat

# Megabytes of decoded blocks; GDAL itself would take 5 % of the machine's memory. Read at its first block.
os.environ.setdefault("GDAL_CACHEMAX", "256")

TIFF_SUFFIXES = (".tif", ".tiff")
_LARGEST_BLOCK = 2**28
_ORIENTATION = 274


class LargeTiff:
    """A TIFF that is read in windows.

    8 or 16 bits; grey, palette, CMYK, RGB, or RGB with a fourth channel that is dropped. As with other photos, 16-bit
    values are scaled to 8 bits (65535 is 255).

    Attributes:
        path: the file.
        size: (height, width) in pixels.
        bands: which of its bands are the picture.

    Raises:
        DataError: if the file cannot be read window by window; the message says why and what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_tiff(path) as dataset:
            self.size = (dataset.height, dataset.width)
            self.bands = _bands(dataset, path)
            _check_layout(dataset, path)

    @contextlib.contextmanager
    def open(self, input_format: InputFormat) -> Iterator[RasterImage]:
        """The image as a model is to receive it, while the file is open.

        Raises:
            DataError: if the file cannot be opened any more.
        """
        with open_tiff(self.path) as dataset:
            yield RasterImage(dataset, self, resized_size(*self.size, input_format.scale), input_format)

    def preview(self, longest: int) -> Tensor:
        """The photo at a size of at most ``longest`` pixels a side, uint8 ``[3, h, w]``.

        Raises:
            DataError: if the file is damaged.
        """
        with open_tiff(self.path) as dataset:
            size = resized_size(*self.size, (longest, longest)) if max(self.size) > longest else self.size
            with damage_named(self.path):
                return self.bands.read(dataset, None, size, Resampling.average)


class RasterImage:
    """An open TIFF as a normalised image of which windows can be had (`inference.WindowedImage`)."""

    def __init__(self, dataset: Any, tiff: LargeTiff, size: tuple[int, int], input_format: InputFormat) -> None:  # noqa: ANN401 - rasterio ships no types
        self.size = size
        self._dataset = dataset
        self._tiff = tiff
        self._format = input_format
        self._normalize = EvalTransform(InputFormat(None, input_format.normalization))

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window of the resized image, normalised: float32 ``[3, height, width]``.

        What is larger on disk is averaged while it is read, as antialiased bilinear resizing does.

        Raises:
            DataError: if the file is damaged there.
        """
        down, across = (whole / own for whole, own in zip(self._tiff.size, self.size, strict=True))
        window = Window.from_slices(
            (top * down, min((top + height) * down, self._tiff.size[0])),
            (left * across, min((left + width) * across, self._tiff.size[1])),
        )
        with damage_named(self._tiff.path):
            pixels = self._tiff.bands.read(self._dataset, window, (height, width), Resampling.bilinear)
        return self._normalize(pixels)

    def resized(self, size: tuple[int, int]) -> RasterImage:
        """The same file at another (height, width)."""
        return RasterImage(self._dataset, self._tiff, size, self._format)


def tiff_pixels(path: Path) -> int:
    """Pixels of a TIFF by its header; 0 if there is none that can be read."""
    try:
        with open_tiff(path) as dataset:
            return int(dataset.height * dataset.width)
    except DataError:
        return 0


class Bands:
    """Which bands of a file are its picture, and what their values mean."""

    def __init__(
        self, indexes: list[int], is_16_bit: bool, is_inverted: bool, palette: NDArray[np.uint8] | None
    ) -> None:
        self.indexes = indexes
        self.is_16_bit = is_16_bit
        self.is_inverted = is_inverted
        self.palette = palette

    def read(
        self,
        dataset: Any,  # noqa: ANN401 - rasterio ships no types
        window: Window | None,
        size: tuple[int, int],
        resampling: Resampling,
    ) -> Tensor:
        """A window, or all, of an open file at a (height, width): uint8 ``[3, height, width]``, RGB."""
        if self.palette is not None:
            resampling = Resampling.nearest
        shape = (len(self.indexes), *size)
        values = dataset.read(self.indexes, window=window, out_shape=shape, resampling=resampling)
        return torch.from_numpy(self._to_rgb(values))

    def _to_rgb(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        if self.palette is not None:
            return np.ascontiguousarray(self.palette[values[0]].transpose(2, 0, 1))
        if self.is_16_bit:
            values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if self.is_inverted:
            values = 255 - values
        return values if len(values) == 3 else np.repeat(values, 3, axis=0)


def _bands(dataset: Any, path: Path) -> Bands:  # noqa: ANN401 - rasterio ships no types
    colours = list(dataset.colorinterp)
    structure = dataset.tags(1, ns="IMAGE_STRUCTURE")
    bits = structure.get("NBITS", "8")
    if dataset.dtypes[0] not in ("uint8", "uint16") or bits not in ("8", "16"):
        held = f"{bits}-bit" if bits not in ("8", "16") else dataset.dtypes[0]
        raise DataError(f"{path}: holds {held} values; expected 8 or 16 bits per channel, whole numbers from 0")
    if ColorInterp.cyan in colours:  # of 8 bits GDAL makes RGB by itself
        raise DataError(f"{path}: holds CMYK colours of 16 bits; save it as RGB, or with 8 bits per channel")
    rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in colours for colour in rgb):
        indexes = [colours.index(colour) + 1 for colour in rgb]
    elif dataset.count in (1, 2, 3, 4):
        indexes = [1] if dataset.count <= 2 else [1, 2, 3]
    else:
        raise DataError(
            f"{path}: has {dataset.count} bands and none is marked as red, green and blue; expected 1, 3 or 4. Choose "
            f"three of them: rio stack {path.name} --bidx 3,2,1 -o OUT.tif"
        )
    palette = None
    if colours[0] == ColorInterp.palette:
        table = dataset.colormap(1)
        palette = np.zeros((max(256, max(table) + 1), 3), np.uint8)
        for value, colour in table.items():
            palette[value] = colour[:3]
    inverted = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") or structure.get("MINISWHITE")
    return Bands(indexes, dataset.dtypes[0] == "uint16", inverted == "YES", palette)


def _check_layout(dataset: Any, path: Path) -> None:  # noqa: ANN401 - rasterio ships no types
    height, width = dataset.block_shapes[0]
    block = height * width * dataset.count * np.dtype(dataset.dtypes[0]).itemsize
    if block > _LARGEST_BLOCK:
        raise DataError(
            f"{path}: is stored in pieces of {width} x {height} pixels, each of which would have to be read as a "
            f"whole; make a tiled TIFF of it: {TO_TILED_TIFF}"
        )
    if _orientation(path) not in (None, 1):
        raise DataError(
            f"{path}: is to be turned or mirrored when it is shown (TIFF tag Orientation), which is not done for a "
            "file of this size; save it the way it is to be seen"
        )


def _orientation(path: Path) -> int | None:
    with path.open("rb") as file:
        header = file.read(8)
        if header[2:3] in (b"\x2b",) or header[3:4] in (b"\x2b",):  # BigTIFF
            header += file.read(8)
        directory = ImageFileDirectory_v2(header)
        file.seek(directory.next)
        directory.load(file)
    return directory.get(_ORIENTATION)


@contextlib.contextmanager
def open_tiff(path: Path) -> Iterator[Any]:
    """Open a TIFF with rasterio.

    Raises:
        DataError: if it is none.
    """
    with damage_named(path), no_georeference_needed():
        dataset = rasterio.open(path, driver="GTiff")
    with dataset:
        yield dataset


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what rasterio raises while it reads a file into a DataError that names it."""
    try:
        yield
    except (RasterioError, OSError) as error:
        reason = error.__cause__ or error
        raise DataError(f"{path}: the image is damaged or cut short ({reason}); replace or remove it") from None


@contextlib.contextmanager
def no_georeference_needed() -> Iterator[None]:
    """Keep rasterio from warning that a photo is no map."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
