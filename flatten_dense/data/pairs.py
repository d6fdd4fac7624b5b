"""Which photo belongs to which mask: the folders of a data set, and the names in them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from flatten_dense.data.images import IMAGE_SUFFIXES, DataError, first_few
from flatten_dense.data.label_map import read_lines

MASK_SUFFIXES = (".png",)
_SPLIT = "{split}"


@dataclass(frozen=True)
class FolderLayout:
    """Where the photos and masks of a split lie.

    In ``images``, ``masks`` and ``split_lists``, ``{split}`` stands for the name of the split.

    Attributes:
        images: folder of the photos, relative to the root; its subfolders are searched.
        masks: folder of the masks, in the same subfolders.
        image_suffix: how the names of photos end beyond what photo and mask share; "" takes every image file.
        mask_suffix: the same for masks; "" takes every PNG file.
        split_lists: text file that names the photos of a split, one a line; None takes all in the folder.
    """

    images: str
    masks: str
    image_suffix: str = ""
    mask_suffix: str = ""
    split_lists: str | None = None

    def image_folder(self, root: Path, split: str) -> Path:
        """The folder of the photos of a split."""
        return root / self.images.replace(_SPLIT, split)

    def mask_folder(self, root: Path, split: str) -> Path:
        """The folder of the masks of a split."""
        return root / self.masks.replace(_SPLIT, split)

    def list_file(self, root: Path, split: str) -> Path | None:
        """The list of a split, if there are lists."""
        return None if self.split_lists is None else root / self.split_lists.replace(_SPLIT, split)

    def has_masks(self, root: Path, split: str) -> bool:
        """Whether the folder of the masks and the list of a split are there."""
        listed = self.list_file(root, split)
        return self.mask_folder(root, split).is_dir() and (listed is None or listed.is_file())

    def describe(self, splits: list[str]) -> str:
        """What the folder should look like, for a message."""
        images, masks = (
            text.replace(_SPLIT, "{" + ",".join(dict.fromkeys(splits)) + "}") for text in (self.images, self.masks)
        )
        image = f"NAME{self.image_suffix}" if self.image_suffix else "NAME.jpg (or another image type)"
        mask = f"NAME{self.mask_suffix or '.png'}"
        return f"Expected layout: ROOT/{images}/{image} and ROOT/{masks}/{mask}"

    def pair(self, root: Path, split: str) -> Pairing:
        """Match the files of a split.

        Raises:
            DataError: as :func:`pair_files`.
        """
        return pair_files(
            self.image_folder(root, split),
            self.mask_folder(root, split),
            self.image_suffix,
            self.mask_suffix,
            self.list_file(root, split),
        )


@dataclass(frozen=True)
class Pairing:
    """The photos and masks of a split, and what does not fit together.

    Attributes:
        samples: (photo, mask) files, sorted by name.
        lone_images: photos without a mask.
        lone_masks: masks without a photo.
        repeated_images: photos of a name that another photo has.
        repeated_masks: masks of a name that another mask has.
        not_found: names of the split's list without photo and mask.
        listed_twice: names that are in the list more than once.
    """

    samples: list[tuple[Path, Path]]
    lone_images: list[Path] = field(default_factory=list)
    lone_masks: list[Path] = field(default_factory=list)
    repeated_images: list[Path] = field(default_factory=list)
    repeated_masks: list[Path] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    listed_twice: list[str] = field(default_factory=list)

    def problems(self) -> dict[tuple[str, str], list[Path] | list[str]]:
        """What does not fit together, by its kind and by what it is in words; empty if all does."""
        found: dict[tuple[str, str], list[Path] | list[str]] = {
            ("no mask", "image(s) without a mask"): self.lone_images,
            ("no photo", "mask(s) without an image"): self.lone_masks,
            ("same name", "image(s) of a stem that another has"): self.repeated_images,
            ("same name", "mask(s) of a stem that another has"): self.repeated_masks,
            ("not found", "name(s) in the list without a file"): self.not_found,
            ("listed twice", "name(s) twice in the list"): self.listed_twice,
        }
        return {fault: items for fault, items in found.items() if items}


def pair_files(
    images: Path, masks: Path, image_suffix: str = "", mask_suffix: str = "", listed: Path | None = None
) -> Pairing:
    """Match the files of two folders, subfolders included, by their paths without suffix.

    Args:
        images: folder of photos.
        masks: folder of masks.
        image_suffix: how photos end, such as ``_leftImg8bit.png`` or ``_photo``; "" takes every image file.
        mask_suffix: how masks end, such as ``_gtFine_labelIds.png``; "" takes every PNG file.
        listed: text file with the names of the split, one a line, with or without their suffix; None takes all.

    Raises:
        DataError: if a folder or the list is missing or holds nothing fitting.
    """
    missing = [folder for folder in (images, masks) if not folder.is_dir()]
    if missing:
        raise DataError(f"{' and '.join(str(folder) for folder in missing)}: no such folder")
    image_of, mask_of = _find(images, image_suffix, IMAGE_SUFFIXES), _find(masks, mask_suffix, MASK_SUFFIXES)
    names: list[str] | None = None
    if listed is not None:
        names = [_key(line, image_suffix, IMAGE_SUFFIXES) or line for line in read_lines(listed, "list of a split")]
        if not names:
            raise DataError(f"{listed}: the list of the split is empty; expected the name of a photo per line")
    wanted = set(image_of) | set(mask_of) if names is None else set(names)
    return Pairing(
        samples=[(image_of[key][0], mask_of[key][0]) for key in sorted(wanted & image_of.keys() & mask_of.keys())],
        lone_images=[path for key in sorted(wanted & image_of.keys() - mask_of.keys()) for path in image_of[key]],
        lone_masks=[path for key in sorted(wanted & mask_of.keys() - image_of.keys()) for path in mask_of[key]],
        repeated_images=_repeated(image_of, wanted),
        repeated_masks=_repeated(mask_of, wanted),
        not_found=sorted(wanted - image_of.keys() - mask_of.keys()),
        listed_twice=sorted(name for name, count in Counter(names).items() if count > 1),
    )


def require_pairs(pairing: Pairing, images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """The (photo, mask) files of a split in which everything has its partner.

    Raises:
        DataError: one message about everything that does not pair up.
    """
    problems = pairing.problems()
    if not problems:
        return pairing.samples
    lines = [
        f"{len(items)} {what}: {first_few([_short(item, images, masks) for item in items])}"
        for (_, what), items in problems.items()
    ]
    raise DataError(
        f"the images in {images} and the masks in {masks} do not pair up:\n  "
        + "\n  ".join(lines)
        + "\nAdd the missing files, or move the others away (`flatten-dense check-data` lists all)"
    )


def _find(folder: Path, suffix: str, types: tuple[str, ...]) -> dict[str, list[Path]]:
    """Files below a folder that end in ``suffix``, or are of one of these types, by their relative path without it."""
    found: dict[str, list[Path]] = {}
    others: list[str] = []

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be listed ({error.strerror}); check its permissions")

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(parent).resolve()
        loops = {here, *here.parents}  # a link that leads back up
        folders[:] = [n for n in folders if not n.startswith(".") and Path(parent, n).resolve() not in loops]
        relative = Path(parent).relative_to(folder)
        for name in sorted(name for name in names if not name.startswith(".")):
            key = _key(name, suffix, types)
            if key is None:
                others.append(name)
            else:
                found.setdefault((relative / key).as_posix(), []).append(Path(parent, name))
    if not found:
        kind = f"ending in {suffix!r}" if suffix else f"of the types {' '.join(types)}"
        example = f" (such as {others[0]})" if others else ""
        raise DataError(f"{folder}: the folder holds no image {kind}, only {len(others)} other files{example}")
    return found


def _key(name: str, suffix: str, types: tuple[str, ...]) -> str | None:
    """A file name without its suffix; None if it does not end so. A suffix may leave out the file's type."""
    stem, dot, kind = name.rpartition(".")
    of_type = f"{dot}{kind}".lower() in types
    if suffix and name.endswith(suffix):
        return name[: -len(suffix)]
    return stem.removesuffix(suffix) if of_type and stem.endswith(suffix) else None


def _repeated(files: dict[str, list[Path]], wanted: set[str]) -> list[Path]:
    return [path for key in sorted(wanted & files.keys()) if len(files[key]) > 1 for path in files[key]]


def _short(item: Path | str, images: Path, masks: Path) -> str:
    """A file's path below its folder."""
    if isinstance(item, str):
        return item
    folder = images if item.is_relative_to(images) else masks
    return item.relative_to(folder).as_posix()
