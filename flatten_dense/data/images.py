"""Reading photos and masks from disk: the one place that opens an image file."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from flatten_dense.structures import LabelSpace

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_EXAMPLES = 5
TO_TILED_TIFF = "rio convert IN OUT.tif --co tiled=true --co blockxsize=512 --co blockysize=512 --co compress=deflate"
"""The command, of rasterio, that makes a tiled TIFF of an image of any size."""

# Naming the decoders keeps Pillow from trying the others. JPEG includes MPO, which some cameras write.
_PHOTO_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_SIDEWAYS = range(5, 9)  # EXIF orientations that swap the sides
_Result = TypeVar("_Result")


class DataError(ValueError):
    """Something in the user's data is not as it must be; the message says what, where and what to do.

    A data loader's worker process cannot hand over an exception: torch builds a new one in the main process from the
    text of the whole worker traceback. This class then keeps the message alone, so ``str(error)`` reads the same
    whichever process found the fault.
    """

    def __init__(self, message: str) -> None:
        raised_as = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.rpartition(raised_as)[2].strip())


class PhotoHeader(NamedTuple):
    """What the beginning of a photo's file says.

    Attributes:
        width: in pixels, of the upright photo.
        height: in pixels, of the upright photo.
        orientation: the EXIF value, 1..8; 1 where the pixels are stored upright.
    """

    width: int
    height: int
    orientation: int


def first_few(items: Sequence[object]) -> str:
    """The first five, for a message."""
    return ", ".join(str(item) for item in items[:_EXAMPLES]) + (", ..." if len(items) > _EXAMPLES else "")


def list_images(source: Path | str) -> list[Path]:
    """Find the images of a folder, or take a single file.

    Args:
        source: an image file, or a folder; its subfolders are not searched.

    Returns:
        The files with one of ``IMAGE_SUFFIXES`` in any case, sorted by name, without hidden ones (``.name``).

    Raises:
        DataError: if ``source`` is missing, cannot be listed, or holds no image.
    """
    source = Path(source)
    suffixes = " ".join(IMAGE_SUFFIXES)
    if source.is_file():
        if source.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{source}: not an image by its name; expected one of {suffixes}")
        return [source]
    try:
        with os.scandir(source) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    except FileNotFoundError:
        raise DataError(f"{source}: no such file or folder; check the path") from None
    except OSError as error:
        raise DataError(f"{source}: the folder cannot be listed ({error.strerror}); check its permissions") from None
    images = sorted(source / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise DataError(
            f"{source}: the folder holds no image, only {len(names)} other files; expected files ending in {suffixes} "
            "directly inside it (subfolders are not searched)"
        )
    return images


def read_image(path: Path | str) -> Tensor:
    """Read a photo as it is meant to be seen.

    The EXIF rotation is applied. Grey becomes three equal channels, 16-bit values are scaled to 8 bits (65535 is 255),
    palettes and CMYK become RGB. Transparency is dropped, not blended: pixels keep the colour stored in the file. Of
    several frames the first is read.

    Returns:
        uint8 ``[3, H, W]``, RGB; the channels of a pixel lie side by side in memory, as resizing is fastest with.

    Raises:
        DataError: if the file is missing, empty, damaged, too large for Pillow's limit, or not a JPEG, PNG, TIFF, BMP
            or WebP image of 8 or 16 bits.
    """
    pixels = _decode(Path(path), _PHOTO_FORMATS, _to_rgb)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_image(content: bytes, name: Path | str) -> Tensor:
    """Read a photo as :func:`read_image` does, from the bytes of its file.

    Args:
        content: of the file.
        name: that messages call it by.

    Raises:
        DataError: as :func:`read_image`.
    """
    pixels = _decode(Path(name), _PHOTO_FORMATS, _to_rgb, content=content)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_header(path: Path | str, content: bytes | None = None) -> PhotoHeader:
    """Find out the size that :func:`read_image` gives a photo, without decoding its pixels.

    The orientation of a PNG is found only if it stands before the pixels, as nearly all programs write it.

    Args:
        path: of the file.
        content: of the file, if it has been read already.

    Raises:
        DataError: if the file is missing, empty, or not a photo by its header; what follows may still be damaged.
    """
    return _decode(Path(path), _PHOTO_FORMATS, _upright_header, load=False, content=content)


def read_mask(path: Path | str) -> Tensor:
    """Read an index mask: a PNG of one channel whose values, or palette indices, are the labels.

    Returns:
        ``[H, W]``, uint8, or int64 if the file has 16 bits per pixel. Values are as stored, rotations never applied.

    Raises:
        DataError: if the file is missing, empty, damaged, not a PNG, or has more than one channel.
    """
    return torch.from_numpy(_decode(Path(path), ("PNG",), _to_indices))


def read_colours(path: Path | str) -> Tensor:
    """Read a mask whose colours are the labels: a PNG of RGB, or of a palette of colours.

    Returns:
        int32 ``[H, W]``, each colour as 0xRRGGBB. Transparency is dropped, rotations are never applied.

    Raises:
        DataError: if the file is missing, empty, damaged, not a PNG, or has 16 bits per channel.
    """
    return torch.from_numpy(_decode(Path(path), ("PNG",), _to_packed_colours))


def mask_image(mask: Tensor, labels: LabelSpace) -> Image.Image:
    """A mask as a picture in the form of the data set, to be saved as PNG.

    Args:
        mask: integers ``[H, W]``, class indices or ``ignore_index``.
        labels: how the data set writes them.

    Returns:
        The data set's values in one channel; where its masks are colours, class indices with a palette of its colours.
    """
    image = Image.fromarray(labels.to_disk(mask.cpu()).numpy())
    palette = labels.disk_palette
    if palette is not None:
        image.putpalette([channel for colour in palette for channel in colour])  # makes the mode P
    return image


def _decode(
    path: Path,
    formats: tuple[str, ...],
    convert: Callable[[Image.Image, Path], _Result],
    load: bool = True,
    content: bytes | None = None,
) -> _Result:
    try:
        if (path.stat().st_size if content is None else len(content)) == 0:
            raise DataError(f"{path}: the file is empty (0 bytes); replace or remove it")
        with Image.open(path if content is None else io.BytesIO(content), formats=formats) as image:
            if load:
                image.load()
            return convert(image, path)
    except DataError:
        raise
    except FileNotFoundError:
        reason = "no such file; check the path"
    except IsADirectoryError:
        reason = "this is a folder, expected an image file"
    except PermissionError:
        reason = "the file may not be read; check its permissions"
    except UnidentifiedImageError:
        known = ", ".join(name for name in formats if name != "MPO")
        reason = f"not a readable image; expected one of {known}. Replace or remove it"
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow warns at the limit and refuses at twice the limit
        reason = (
            f"the image has more than {limit / 1e6:.0f} million pixels; make it smaller or cut it into tiles. "
            f"`predict` takes a tiled TIFF of any size: {TO_TILED_TIFF}"
        )
    except Exception as error:  # on damaged data Pillow's decoders raise nearly anything
        reason = f"the image is damaged or cut short ({error}); replace or remove it"
    raise DataError(f"{path}: {reason}")


def _upright_header(image: Image.Image, path: Path) -> PhotoHeader:
    orientation = 1
    with contextlib.suppress(Exception):  # as when the pixels are read
        # A PNG's own getexif would decode the pixels, to see what stands behind them.
        orientation = int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # newer Pillow gives it the upright size
        width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    return PhotoHeader(*((height, width) if orientation in _SIDEWAYS else (width, height)), orientation)


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    with contextlib.suppress(Exception):  # damaged EXIF data must not cost the photo
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillow: I for 16-bit PNG
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError(f"{path}: holds 32-bit values, whose range is unknown; save it with 8 or 16 bits per channel")
    if "transparency" in image.info:  # a direct conversion to RGB would warn
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _to_indices(image: Image.Image, path: Path) -> NDArray[np.uint8] | NDArray[np.int64]:
    if image.mode.startswith("I"):
        return np.array(image).astype(np.int64)
    if image.mode not in ("1", "L", "P"):
        raise DataError(
            f"{path}: the mask has {len(image.getbands())} channels ({image.mode}); expected an index mask, a PNG of "
            "one channel whose pixel values are the label numbers. If its colours are the labels, say what they mean "
            "by --data.label_map FILE, with lines like 128 64 128 road"
        )
    values = np.array(image).astype(np.uint8, copy=False)
    if image.mode == "L":
        bit_depth = _bit_depth(path)
        if bit_depth < 8:
            values //= 255 // (2**bit_depth - 1)  # Pillow stretches grey of 2 and 4 bits to 0..255
    return values


def _bit_depth(path: Path) -> int:
    """Bits per channel by a PNG's header; Pillow does not tell."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _to_packed_colours(image: Image.Image, path: Path) -> NDArray[np.int32]:
    if image.mode.startswith("I") or _bit_depth(path) > 8:
        raise DataError(f"{path}: holds 16-bit values; expected a mask of 8-bit colours, as the label map names them")
    # Four bytes a pixel are one big-endian number.
    return (np.asarray(image.convert("RGBA")).view(">u4")[..., 0] >> 8).astype(np.int32)
