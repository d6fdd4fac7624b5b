"""Class names from a file, and what they say about the masks beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from flatten_dense.data.images import DataError, first_few
from flatten_dense.data.label_map import is_header, parse_coloured, read_label_map, read_lines
from flatten_dense.structures import Colour, LabelSpace, default_palette

CLASS_FILES = ("classes.txt", "objectInfo150.txt")


@dataclass(frozen=True)
class ClassList:
    """What a class file says.

    Attributes:
        names: of the classes, in order.
        palette: their colours, 8-bit RGB; None if the file has none.
        first_index: the index that a table with the column Idx gives the first class; None for other files.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...] | None = None
    first_index: int | None = None


def read_labels(
    root: Path,
    classes: Path | None = None,
    num_classes: int | None = None,
    reduce_zero_label: bool = False,
    ignore_index: int = 255,
    label_map: Path | None = None,
) -> LabelSpace:
    """Work out the label space of a data folder.

    Args:
        root: the folder; the first of ``CLASS_FILES`` in it is read if no other list is named.
        classes: class list, read by :func:`read_class_list`.
        num_classes: checked against the list; without one it gives the names "class 1", "class 2" and so on.
        reduce_zero_label: whether masks hold 0 for unlabelled and classes from 1.
        ignore_index: label value of pixels that do not count.
        label_map: what the values or colours of the masks mean, read by
            :func:`flatten_dense.data.label_map.read_label_map`; without a class list it names the classes too.

    Raises:
        DataError: if the classes are unknown, or the files and options contradict one another.
    """
    path = _class_file(root) if classes is None else Path(classes).expanduser()
    found: ClassList | None = None
    if path is not None:
        found = read_class_list(path)
        if num_classes not in (None, len(found.names)):
            raise DataError(
                f"--data.num_classes is {num_classes}, but {path} names {len(found.names)} classes "
                f"({first_few(found.names)}); correct one of them, or leave --data.num_classes out"
            )
    elif num_classes is not None:
        found = ClassList(tuple(f"class {index + 1}" for index in range(num_classes)))
    if label_map is not None:
        if reduce_zero_label:
            raise DataError("--data.reduce_zero_label is for masks without a label map, which says itself what 0 means")
        names, palette = (found.names, found.palette) if found else (None, None)
        return read_label_map(Path(label_map).expanduser(), names, ignore_index).label_space(palette, ignore_index)
    if found is None:
        raise _classes_unknown(root)
    if path is not None:
        _check_first_index(path, found.first_index, reduce_zero_label)
    colours = found.palette or default_palette(len(found.names))
    return LabelSpace(found.names, colours, reduce_zero_label, ignore_index)


def with_label_map(labels: LabelSpace, label_map: Path) -> LabelSpace:
    """Labels of a trained model for masks that hold its classes in other values.

    Raises:
        DataError: if the map cannot be read, or does not lead to the same classes.
    """
    mapped = read_label_map(Path(label_map).expanduser(), labels.class_names, labels.ignore_index)
    return mapped.label_space(labels.palette, labels.ignore_index)


def check_same_classes(
    root: Path, labels: LabelSpace, classes: Path | None = None, num_classes: int | None = None
) -> None:
    """Compare the classes of a trained model with those that the options or a data folder state, if they state any.

    A list of the same length but other names only warns: the same classes may be called differently.

    Raises:
        DataError: if another number of classes is stated, or a list cannot be read.
    """
    if num_classes not in (None, labels.num_classes):
        raise DataError(
            f"the model was trained on {labels.num_classes} classes ({first_few(labels.class_names)}), but "
            f"--data.num_classes says {num_classes}: leave the option out"
        )
    path = classes or _class_file(root)
    if path is None:
        return
    names = read_class_list(path).names
    if len(names) != labels.num_classes:
        raise DataError(
            f"the model was trained on {labels.num_classes} classes ({first_few(labels.class_names)}), but {path} "
            f"names {len(names)} ({first_few(names)}): use the data set it was trained on, or one of the same classes"
        )
    if names != labels.class_names:
        rank_zero_warn(
            f"{path} names the classes {first_few(names)}; the model was trained with "
            f"{first_few(labels.class_names)}. The model's names are used: make sure that both mean the same."
        )


def read_class_list(path: Path) -> ClassList:
    """Read class names from a file.

    Args:
        path: one name per line; or colours with names, ``r g b name`` or ``name,r,g,b``, with or without a header; or a
            table, tab- or comma-separated, whose header begins with Idx and ends with Name. Of a table's synonyms
            ("building, edifice") the first is taken.

    Raises:
        DataError: if the file cannot be read, a name is missing or repeated, a row has no colour though others have,
            the indices have gaps, or lines are numbered without a header that says so.
    """
    lines = read_lines(path, "class list")
    header = lines[0].lower() if lines else ""
    if header.startswith("idx") and header.endswith("name"):
        found = _read_table(path, lines)
    elif any(parse_coloured(line) for line in lines):
        found = _read_coloured(path, lines[is_header(header) :])
    else:
        _check_unnumbered(path, lines)
        found = ClassList(tuple(lines))
    names = found.names
    if not names or not all(names):
        raise DataError(f"{path}: the class list lacks a name; expected one name per class")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: the class list repeats {first_few(repeated)}; expected a different name per class")
    return found


def _check_unnumbered(path: Path, lines: list[str]) -> None:
    numbered = [re.fullmatch(r"(\d+)[\s,;:.)]+\S.*", line) for line in lines]
    numbers = [int(match[1]) for match in numbered if match]
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(lines))):
        raise DataError(
            f"{path}: the lines are numbered ({first_few(lines)}); expected names alone, or a table with the header "
            "Idx,Name, whose first number says what 0 means in the masks"
        )


def _read_coloured(path: Path, lines: list[str]) -> ClassList:
    rows = [parse_coloured(line) for line in lines]
    wrong = [line for line, row in zip(lines, rows, strict=True) if row is None or max(row[0]) > 255]
    if wrong:
        raise DataError(
            f"{path}: the line {wrong[0]!r} has no colour of three numbers from 0 to 255, as other lines have"
        )
    colours, names = zip(*(row for row in rows if row), strict=True)
    if all(re.match(r"\d+[\s,;]", name) for name in names):
        raise DataError(
            f"{path}: the lines have a number beside name and colour ({first_few(lines)}); expected 'r g b name' or "
            "'name,r,g,b'"
        )
    return ClassList(names, colours)


def _read_table(path: Path, lines: list[str]) -> ClassList:
    separator, synonyms = ("\t", ",") if "\t" in lines[0] else (",", ";")
    columns = len(lines[0].split(separator))
    names, indices = [], []
    for line in lines[1:]:
        cells = line.split(separator)
        if len(cells) != columns or not cells[0].strip().isdecimal():
            raise DataError(f"{path}: the row {line!r} does not fit the header {lines[0]!r}")
        indices.append(int(cells[0]))
        names.append(cells[-1].split(synonyms)[0].strip())
    if not indices or indices != list(range(indices[0], indices[0] + len(indices))):
        raise DataError(f"{path}: the column Idx must count up by one, without gaps")
    return ClassList(tuple(names), None, indices[0])


def _classes_unknown(root: Path) -> DataError:
    if not root.is_dir():
        return DataError(f"--data.root {root}: no such folder; expected the one that holds images and annotations")
    return DataError(
        f"--data.root {root}: neither {' nor '.join(CLASS_FILES)} is in this folder, so the classes are unknown. "
        "Name a class list with --data.classes FILE (one name per line), or set --data.num_classes K"
    )


def _class_file(root: Path) -> Path | None:
    return next((root / name for name in CLASS_FILES if (root / name).is_file()), None)


def _check_first_index(path: Path, first_index: int | None, reduce_zero_label: bool) -> None:
    if first_index is None or first_index == int(reduce_zero_label):
        return
    if first_index > 1:
        raise DataError(f"{path}: the column Idx starts at {first_index}; expected 0 or 1")
    meaning = "0 would be unlabelled" if first_index == 1 else "0 would be a class"
    raise DataError(
        f"{path} counts its classes from {first_index}, so {meaning} in the masks: set --data.reduce_zero_label "
        f"{'true' if first_index == 1 else 'false'}. If the masks do not follow that table, name a plain list instead "
        "(--data.classes FILE, one name per line)"
    )
