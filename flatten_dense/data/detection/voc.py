"""PASCAL VOC folders: one XML file an image, read in place."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from flatten_dense.data.base import Split
from flatten_dense.data.class_list import read_class_list
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.datamodule import DetectionDataModule
from flatten_dense.data.detection.faults import Fault, SplitReading
from flatten_dense.data.images import IMAGE_SUFFIXES, DataError, read_header
from flatten_dense.data.label_map import read_lines

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(root: Path, split: str, class_names: Sequence[str] | None = None) -> DetectionAnnotations:
    """Read a split in the layout of PASCAL VOC.

    Either ``ImageSets/Main/SPLIT.txt`` names the images, one a line, whose files are ``Annotations/NAME.xml`` and
    ``JPEGImages/NAME.jpg``. Or there is a folder for each split, with ``Annotations`` and ``JPEGImages`` in it or with
    both kinds of file side by side; then every XML file is an image.

    Boxes are pixels counted from 1 with both corners inside: ``xmin=1, xmax=W`` covers the whole width. So x is
    ``xmin - 1`` and the width ``xmax - xmin + 1``, as in COCO's own translation of VOC and in detectron2; torchvision
    hands out the corners as they stand, mmdet takes 1 from all four. The box of a tool that counts from 0, which is
    out by a pixel then, is not moved across the border.

    Objects marked ``difficult`` become crowds. Training leaves them out, evaluation ignores what is found on them, as
    VOC asks; but as COCOeval does it, which ignores a smaller box inside the object too.

    Args:
        root: folder of the data set.
        split: name of the list or folder.
        class_names: the classes, in order; None takes those of :func:`voc_class_names`. Category ids count from 1.

    Returns:
        Images by rising name, with ids from 1.

    Raises:
        DataError: if files are missing or not as they must be.
    """
    return inspect_voc(root, split, class_names).require()


def inspect_voc(root: Path, split: str, class_names: Sequence[str] | None = None) -> SplitReading:
    """Read a split as :func:`read_voc` does, and go on where a file is at fault.

    Raises:
        DataError: if the split or the classes cannot be found.
    """
    root = Path(root)
    names = voc_class_names(root) if class_names is None else tuple(class_names)
    folders = _find_split(root, split)
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    annotations = DetectionAnnotations(folders.source, folders.photos, [], [], categories)
    reading = SplitReading(annotations)
    photos = _photos_by_stem(folders.photos)
    for name in _image_names(folders, reading.faults):
        path = folders.annotations / f"{name}.xml"
        files = photos.get(name, [])
        if len(files) != 1:
            what = "annotated image(s) without a photo" if not files else "photos of one name; keep one of each"
            reading.faults.append(Fault("same name" if files else "no photo", what, str(path), ", ".join(files)))
            continue
        try:
            _add_image(reading, path, files[0], {category: index for index, category in enumerate(names, start=1)})
        except DataError as error:
            detail = str(error).removeprefix(f"{path}: ")
            reading.faults.append(Fault("unreadable", "annotation file(s) cannot be read", str(path), detail))
    return reading


def voc_class_names(root: Path, classes: Path | None = None) -> tuple[str, ...]:
    """The classes of a folder: of ``classes``, else of ``classes.txt``, else all names in its XML files, sorted.

    Sorted names are VOC's own order.

    Raises:
        DataError: if the list cannot be read, or no object has a name.
    """
    path = Path(classes).expanduser() if classes is not None else root / "classes.txt"
    if classes is not None or path.is_file():
        return read_class_list(path).names
    if not root.is_dir():
        raise DataError(f"--data.root {root}: no such folder; expected the one that holds Annotations and JPEGImages")
    names: set[str] = set()
    for file in _all_annotations(root):
        try:
            names.update(_text(node, "name") for node in _read_xml(file).iterfind("object"))
        except DataError:
            continue  # reading the split it belongs to says so
    names.discard("")
    if not names:
        raise DataError(
            f"{root}: no XML file in Annotations or SPLIT/Annotations names an object, so the classes are unknown. "
            "Check the path, or name a class list with --data.classes FILE (one name per line)"
        )
    return tuple(sorted(names))


class VocDataModule(DetectionDataModule):
    """A data set in the layout of PASCAL VOC, as :func:`read_voc`. Further options are those of DetectionDataModule.

    Args:
        root: folder of the data set, such as ``VOC2012``; only read, never written to.
        classes: file with a class name per line; by default ``classes.txt`` in ``root``, else the names in the XML
            files of all splits, sorted.
        train_split: list in ``ImageSets/Main``, or folder in ``root``.
        val_split: the same of validation.
        test_split: the same of what ``test`` reads; None is that of validation.
    """

    def __init__(
        self,
        root: Path,
        classes: Path | None = None,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str | None = None,
        **options: Any,  # noqa: ANN401 - as CocoDataModule
    ) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.classes = classes
        self.folders: dict[Split, str] = {"train": train_split, "val": val_split, "test": test_split or val_split}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """As :func:`voc_class_names`, found out at the first use."""
        return voc_class_names(self.root, self.classes)

    def inspect_split(self, split: Split) -> SplitReading:
        """Read the XML files of a split; raises as :func:`inspect_voc`."""
        return inspect_voc(self.root, self.folders[split], self.class_names)


class _SplitFolders(NamedTuple):
    source: Path
    annotations: Path
    photos: Path
    names: list[str] | None


def _find_split(root: Path, split: str) -> _SplitFolders:
    listed, folder = root / "ImageSets" / "Main" / f"{split}.txt", root / split
    if listed.is_file():
        names = [_without_suffix(line) for line in read_lines(listed, "list of a split")]
        found = _SplitFolders(listed, root / "Annotations", root / "JPEGImages", names)
    elif folder.is_dir():
        annotations, photos = folder / "Annotations", folder / "JPEGImages"
        found = _SplitFolders(
            folder, annotations if annotations.is_dir() else folder, photos if photos.is_dir() else folder, None
        )
    else:
        raise DataError(
            f"{root}: there is no split {split!r}; expected ROOT/ImageSets/Main/{split}.txt beside ROOT/Annotations "
            f"and ROOT/JPEGImages, or ROOT/{split}/Annotations and ROOT/{split}/JPEGImages. Another split is chosen by "
            "--data.train_split, --data.val_split and --data.test_split"
        )
    for path in (found.annotations, found.photos):
        if not path.is_dir():
            raise DataError(f"{path}: no such folder, but {found.source} names its files")
    return found


def _image_names(folders: _SplitFolders, faults: list[Fault]) -> list[str]:
    """Sorted, each once."""
    there = {path.stem for path in _xml_files(folders.annotations)}
    if folders.names is None:
        if not there:
            raise DataError(f"{folders.annotations}: the folder holds no XML file; expected NAME.xml for each photo")
        return sorted(there)
    if not folders.names:
        raise DataError(f"{folders.source}: the list of the split is empty; expected the name of an image per line")
    source = str(folders.source)
    repeated = [name for name, count in Counter(folders.names).items() if count > 1]
    faults += [Fault("listed twice", "name(s) twice in the list", source, name) for name in repeated]
    missing = sorted({*folders.names} - there)
    what = f"name(s) in the list without a file in {folders.annotations}"
    faults += [Fault("no annotation", what, source, f"{name}.xml") for name in missing]
    return sorted({*folders.names} & there)


def _add_image(reading: SplitReading, path: Path, file_name: str, category_ids: dict[str, int]) -> None:
    tree = _read_xml(path)
    annotations = reading.annotations
    size = _size(tree) or read_header(annotations.image_folder / file_name)[:2]
    image_id = len(annotations.images) + 1
    annotations.images.append({"id": image_id, "file_name": file_name, "width": size[0], "height": size[1]})
    for number, node in enumerate(tree.iterfind("object"), start=1):
        name = _text(node, "name")
        label = f"object {number} ({name})"
        box = _box(node)
        if box is None:
            what = "object(s) without the four numbers of a <bndbox>"
            reading.faults.append(Fault("no box", what, str(path), label))
        if name not in category_ids:
            what = "object(s) of a class that the class list lacks" if name else "object(s) without a <name>"
            reading.faults.append(Fault("unknown category", what, str(path), label))
        if box is None or name not in category_ids:
            continue
        annotation: dict[str, Any] = {
            "id": len(annotations.annotations) + 1,
            "image_id": image_id,
            "category_id": category_ids[name],
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(_text(node, "difficult").lower() in ("1", "true")),
        }
        annotations.annotations.append(annotation)


def _box(node: ElementTree.Element) -> list[float] | None:
    """COCO's [x, y, width, height]."""
    try:
        left, top, right, bottom = (float(node.findtext(f"bndbox/{corner}") or "") for corner in _CORNERS)
    except ValueError:
        return None
    if not all(math.isfinite(value) for value in (left, top, right, bottom)):
        return None
    x, y = (max(value - 1, min(value, 0.0)) for value in (left, top))
    return [x, y, right - x, bottom - y]


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """(width, height); None if the file leaves it out, as some tools do or by zeros."""
    try:
        width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _text(node: ElementTree.Element, tag: str) -> str:
    return (node.findtext(tag) or "").strip()


class _DoctypeFound(Exception):
    pass


class _PlainTreeBuilder(ElementTree.TreeBuilder):
    """Stops at a document type, the only place where a file can declare entities that grow or read other files."""

    def doctype(self, name: str, public_id: str | None, system_id: str | None) -> None:
        raise _DoctypeFound


def _read_xml(path: Path) -> ElementTree.Element:
    try:
        tree = ElementTree.parse(path, ElementTree.XMLParser(target=_PlainTreeBuilder())).getroot()
    except _DoctypeFound:
        reason = "declares a DOCTYPE, which annotations have no use for and which can be abused; remove that line"
    except ElementTree.ParseError as error:
        reason = f"no well-formed XML ({error}); correct or replace it"
    except (OSError, ValueError, LookupError) as error:  # LookupError: an encoding that Python does not know
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    else:
        if isinstance(tree, ElementTree.Element) and tree.tag == "annotation":
            return tree
        reason = "no VOC annotation: the outermost element is not <annotation>"
    raise DataError(f"{path}: {reason}")


def _photos_by_stem(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
            found.setdefault(stem, []).append(name)
    return found


def _xml_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.xml")) if not path.name.startswith(".")]


def _all_annotations(root: Path) -> Iterator[Path]:
    """Of all splits."""
    if (root / "Annotations").is_dir():
        yield from _xml_files(root / "Annotations")
        return
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        yield from _xml_files(folder / "Annotations" if (folder / "Annotations").is_dir() else folder)


def _without_suffix(line: str) -> str:
    stem, suffix = os.path.splitext(line)
    return stem if suffix.lower() in IMAGE_SUFFIXES else line
