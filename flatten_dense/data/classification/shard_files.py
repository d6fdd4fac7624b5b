"""Shards: many photos and their classes in a few tar files, in the format of the WebDataset library."""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from flatten_dense.data.images import IMAGE_SUFFIXES, DataError, read_header

INDEX = "shards.json"
"""What stands beside the tar files of a split, written last."""

_FORMAT = 1
_REMOTE = ("http", "https", "hf", "gs")
_MAKE_THEM = "`flatten-dense make-shards FOLDER OUT` makes shards from a folder of photos"


class ShardedPhoto(NamedTuple):
    """A sample as shards hold it.

    Attributes:
        content: bytes of the photo's file.
        label: index of its class.
        path: where the photo came from.
    """

    content: bytes
    label: int
    path: str


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Attributes:
        name: of the file.
        samples: photos in it.
        size: of the file in bytes.
    """

    name: str
    samples: int
    size: int


@dataclass(frozen=True)
class ShardIndex:
    """What the shards of a split hold.

    Attributes:
        classes: names, in the order of the class indices.
        shards: in order.
    """

    classes: tuple[str, ...]
    shards: tuple[Shard, ...]

    def write(self, folder: Path) -> None:
        """Put it beside the shards."""
        (folder / INDEX).write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, folder: str) -> ShardIndex:
        """What stands beside the shards of a folder, or of a URL.

        Raises:
            DataError: if it is not there, or is not as it must be.
        """
        where = f"{folder}/{INDEX}"
        try:
            found = json.loads(_read(where))
            shards = tuple(Shard(**shard) for shard in found["shards"])
            index = cls(tuple(found["classes"]), shards)
            if found["format"] != _FORMAT or not shards or not all(map(_is_sound, shards)):
                raise ValueError
        except FileNotFoundError:
            raise DataError(f"{where}: no such file; {_MAKE_THEM}, and writes this file last") from None
        except DataError:
            raise
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{where}: not an index of shards as make-shards writes it; {_MAKE_THEM}") from None
        return index


def read_shard(folder: str, shard: Shard, num_classes: int) -> list[ShardedPhoto]:
    """Read a whole shard. Of each sample only the photo, ``.cls`` and ``.path`` are looked at, and nothing is run.

    Args:
        folder: that holds the shards, or its URL.
        shard: to read.
        num_classes: K.

    Raises:
        DataError: if the shard is missing, cut short, or holds something else than its index says.
        ValueError: if WebDataset is not installed.
    """
    where = f"{folder}/{shard.name}"
    tariterators = _webdataset().tariterators
    advice = f"copy it anew, or make the shards anew: {_MAKE_THEM}"
    try:
        content = _read(where)
    except FileNotFoundError:
        raise DataError(f"{where}: no such file, but {INDEX} names it; {advice}") from None
    if len(content) != shard.size:
        raise DataError(f"{where}: has {len(content)} bytes, expected {shard.size}; {advice}")
    try:
        members = tariterators.tar_file_expander([{"url": where, "stream": io.BytesIO(content)}])
        photos = [_photo(sample, num_classes) for sample in tariterators.group_by_keys(members)]
    except DataError:
        raise
    except Exception as error:  # on damaged data tarfile raises nearly anything
        raise DataError(f"{where}: not a readable tar file ({error}); {advice}") from None
    if len(photos) != shard.samples:
        raise DataError(f"{where}: holds {len(photos)} photos, expected {shard.samples}; {advice}")
    return photos


def write_shard(path: Path, photos: Iterable[tuple[Path, int, str]], first: int) -> Shard:
    """Put photos into a tar file, their bytes as they are.

    Args:
        path: of the tar file.
        photos: file, index of the class and the name that it shall be known by.
        first: number of the first.

    Raises:
        DataError: if a file is no photo.
        ValueError: if WebDataset is not installed.
    """
    count = 0
    draft = path.with_name(f".{path.name}.part")
    with draft.open("wb") as file, _webdataset().TarWriter(file, mtime=0) as writer:
        for count, (photo, label, name) in enumerate(photos, 1):
            content = photo.read_bytes()
            read_header(photo, content)
            suffix = photo.suffix.lower().removeprefix(".")
            key = f"{first + count - 1:09}"
            writer.write({"__key__": key, suffix: content, "cls": str(label).encode(), "path": name.encode()})
    draft.replace(path)
    return Shard(path.name, count, path.stat().st_size)


def _photo(sample: dict[str, Any], num_classes: int) -> ShardedPhoto:
    where = f"{sample['__url__']}, sample {sample['__key__']}"
    contents = [sample[suffix[1:]] for suffix in IMAGE_SUFFIXES if suffix[1:] in sample]
    fields = " ".join(sorted(f".{name}" for name in sample if not name.startswith("__")))
    if len(contents) != 1 or "cls" not in sample:
        raise DataError(
            f"{where}: has {fields}; expected one photo ({' '.join(IMAGE_SUFFIXES)}) and its class as a number (.cls). "
            "Other forms, pickle above all, are not read"
        )
    if not re.fullmatch(rb"\d{1,9}", sample["cls"]) or int(sample["cls"]) >= num_classes:
        raise DataError(
            f"{where}: its class (.cls) is {sample['cls'][:20]!r}, expected a number from 0 to {num_classes - 1}"
        )
    path = sample["path"].decode(errors="replace") if "path" in sample else f"{sample['__url__']}/{sample['__key__']}"
    return ShardedPhoto(contents[0], int(sample["cls"]), path)


def _is_sound(shard: Shard) -> bool:
    # A name must not lead out of the folder, nor be taken for something else by the program that fetches it.
    numbers = all(isinstance(number, int) and number > 0 for number in (shard.samples, shard.size))
    return numbers and re.fullmatch(r"\w[\w.-]*", shard.name) is not None


def _read(where: str) -> bytes:
    """The bytes of a file or URL; raises FileNotFoundError if there is no such file."""
    scheme = where.partition("://")[0] if "://" in where else ""
    if not scheme:
        return Path(where).read_bytes()
    if scheme not in _REMOTE:  # WebDataset knows a scheme that runs a command
        known = " ".join(f"{name}://" for name in _REMOTE)
        raise DataError(f"{where}: {scheme}:// is not understood; expected a folder or one of {known}")
    try:
        with _webdataset().gopen(where) as stream:
            content: bytes = stream.read()
    except OSError as error:
        # WebDataset says which words it started the program with, and what it ended with.
        status = re.search(r"exit (\d+)", str(error))
        reason = f"{'gsutil' if scheme == 'gs' else 'curl'} ended with status {status[1]}" if status else str(error)
        raise DataError(f"{where}: cannot be fetched ({reason}); check the address and the network") from None
    return content


def _webdataset() -> ModuleType:
    try:
        return importlib.import_module("webdataset")
    except ModuleNotFoundError:
        raise ValueError("shards need the library WebDataset: pip install 'flatten-dense[stream]'") from None
