"""Reading every photo of a data set, in several processes, to see what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flatten_dense.data.images import DataError, read_header, read_image

_FEW = 64  # for fewer, starting processes takes longer than reading
_Facts = TypeVar("_Facts")


@dataclass(frozen=True)
class PhotoFacts:
    """What a photo's file holds; plain data, so that a worker process can hand it over.

    Attributes:
        path: the file.
        error: why it cannot be read; "" if it can.
        size: (width, height) in pixels, upright; None if it cannot be read.
        orientation: the EXIF value, 1..8; 1 where the pixels are stored upright.
        digest: of the pixels; equal photos have equal ones, whatever file they lie in.
    """

    path: str
    error: str = ""
    size: tuple[int, int] | None = None
    orientation: int = 1
    digest: str = ""


class PhotoInspection(Dataset[PhotoFacts]):
    """Reads photos whole, for :func:`read_all` to spread over processes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PhotoFacts:
        return inspect_photo(self.paths[index])


def inspect_photo(path: Path) -> PhotoFacts:
    """Read a photo; one that cannot be read is a fact like others."""
    try:
        pixels = read_image(path)
        orientation = read_header(path).orientation
    except DataError as error:
        return PhotoFacts(str(path), str(error).removeprefix(f"{path}: "))
    return PhotoFacts(str(path), "", (pixels.shape[2], pixels.shape[1]), orientation, _digest(pixels))


def read_all(inspection: Dataset[_Facts], num_workers: int) -> Iterator[_Facts]:
    """The items of a data set in their order; many are read by this number of processes."""
    workers = num_workers if len(inspection) > _FEW else 0  # type: ignore[arg-type]
    for batch in DataLoader(inspection, batch_size=4, num_workers=workers, collate_fn=list):
        yield from batch


def _digest(pixels: Tensor) -> str:
    digest = hashlib.blake2b(pixels.permute(1, 2, 0).contiguous().numpy().data, digest_size=16)
    digest.update(repr(tuple(pixels.shape)).encode())
    return digest.hexdigest()
