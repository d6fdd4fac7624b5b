"""Where the photos and label files of a YOLO data set lie, and what its classes are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import get_loader

from flatten_dense.data.class_list import read_class_list
from flatten_dense.data.images import IMAGE_SUFFIXES, DataError, first_few
from flatten_dense.data.label_map import read_lines

_YAML_SUFFIXES = (".yaml", ".yml")


class YoloSplit(NamedTuple):
    """The files of a split.

    Attributes:
        source: the folder or list of photos; the first if there are several.
        image_folder: what the names of photos are relative to; one elsewhere has its whole path.
        photos: sorted names.
        labels: the label file of each photo, whether it is there or not.
        folders: that were searched for photos; a list is no folder.
    """

    source: Path
    image_folder: Path
    photos: list[str]
    labels: list[Path]
    folders: list[Path]


def find_yolo_split(root: Path, split: str) -> YoloSplit:
    """Find the photos of a split, subfolders included.

    What ``data.yaml`` says of the split is a folder, a text file with a photo a line, or a list of both, relative to
    its ``path`` or to the root. Without it the photos are in ``images/SPLIT`` or ``SPLIT/images``. A label file has its
    photo's path with ``labels`` for the last folder ``images``; it lies beside the photo if there is none.

    Raises:
        DataError: if there is no such split, it holds no photo, or what names it leads nowhere.
    """
    content = _read_data_yaml(root)
    if content.get(split):
        yaml = _data_yaml(root) or root
        named = content[split] if isinstance(content[split], list) else [content[split]]
        entries = [_locate(root, content, yaml, split, str(entry)) for entry in named]
    else:
        entries = [folder for folder in (root / "images" / split, root / split / "images") if folder.is_dir()][:1]
        if not entries:
            raise DataError(
                f"{root}: there is no split {split!r}; expected ROOT/images/{split} or ROOT/{split}/images, or a line "
                f"'{split}: FOLDER' in ROOT/data.yaml. Another split is chosen by --data.train_split, --data.val_split "
                "and --data.test_split"
            )
    folders = [entry for entry in entries if entry.is_dir()]
    paths = {path for folder in folders for path in _photos_below(folder)}
    for listed in (entry for entry in entries if not entry.is_dir()):
        lines = read_lines(listed, "list of photos")
        paths.update(Path(os.path.normpath(listed.parent / line)) for line in lines)
    if not paths:
        raise DataError(f"{entries[0]}: no photo of the split {split!r}; expected files in {' '.join(IMAGE_SUFFIXES)}")
    image_folder = folders[0] if len(entries) == len(folders) == 1 else root
    named_paths = sorted((_relative(path, image_folder), path) for path in paths)
    return YoloSplit(
        entries[0],
        image_folder,
        [name for name, _ in named_paths],
        [_label_file(path, root) for _, path in named_paths],
        folders,
    )


def yolo_class_names(root: Path, classes: Path | None = None) -> tuple[str, ...]:
    """The classes of a folder: of ``classes``, else of ``names`` in ``data.yaml``, else of ``classes.txt``.

    Args:
        root: the folder.
        classes: a YAML file with ``names``, or a text file with a name per line.

    Raises:
        DataError: if none of them is there, or it is not as it must be.
    """
    if not root.is_dir():
        raise DataError(f"--data.root {root}: no such folder; expected the one that holds images and labels")
    path = Path(classes).expanduser() if classes is not None else None
    if path is None:
        yaml = _data_yaml(root)
        texts = [root / "classes.txt", root / "labels" / "classes.txt"]
        has_names = yaml is not None and "names" in _read_yaml(yaml)
        path = yaml if has_names else next((text for text in texts if text.is_file()), None)
    if path is None:
        raise DataError(
            f"{root}: neither data.yaml with 'names' nor classes.txt is in this folder, so the classes are unknown. "
            "Name a class list with --data.classes FILE (one name per line, class 0 first)"
        )
    return _names_of_yaml(path) if path.suffix in _YAML_SUFFIXES else read_class_list(path).names


def _data_yaml(root: Path) -> Path | None:
    """``data.yaml``, or the one YAML file of another name."""
    if (root / "data.yaml").is_file():
        return root / "data.yaml"
    found = [path for path in sorted(root.glob("*")) if path.suffix in _YAML_SUFFIXES]
    return found[0] if len(found) == 1 else None


def _read_data_yaml(root: Path) -> dict[str, Any]:
    path = _data_yaml(root)
    return _read_yaml(path) if path else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = get_loader("yaml")(path.read_text(encoding="utf-8-sig"))
    except Exception as error:  # a YAML library's errors have no base that jsonargparse names
        raise DataError(f"{path}: no readable YAML file ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected lines like 'names: [cat, dog]' and 'train: images/train'")
    return content


def _names_of_yaml(path: Path) -> tuple[str, ...]:
    content = _read_yaml(path)
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or any(isinstance(name, dict | list) for name in names):
        raise DataError(f"{path}: 'names' is {names!r}; expected a list of names, or lines '0: cat' without gaps")
    if content.get("nc") not in (None, len(names)):
        raise DataError(f"{path}: nc is {content['nc']}, but there are {len(names)} names; correct one of them")
    texts = tuple(str(name) for name in names)
    repeated = sorted({name for name in texts if texts.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: 'names' repeats {first_few(repeated)}; expected a different name per class")
    return texts


def _locate(root: Path, content: dict[str, Any], yaml: Path, split: str, entry: str) -> Path:
    base = root / str(content.get("path") or "")
    # Files move between machines: their 'path', or a '../' that one export tool writes, then leads nowhere.
    tried = [folder / name for name in (entry, entry.removeprefix("../")) for folder in (base, root)]
    found = next((path for path in tried if path.exists()), None)
    if found is None:
        raise DataError(
            f"{yaml}: '{split}: {entry}' is neither a folder nor a list of photos below {root}; correct the line"
        )
    return found


def _photos_below(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return found


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _label_file(photo: Path, root: Path) -> Path:
    # Above the root a folder may be called images for reasons of its own.
    top, parts = (root, photo.relative_to(root).parts) if photo.is_relative_to(root) else (Path(), photo.parts)
    folders = list(parts[:-1])
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return top.joinpath(*folders, f"{photo.stem}.txt")
