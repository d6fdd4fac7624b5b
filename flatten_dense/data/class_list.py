"""Class names from a file, and what they say about the masks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from flatten_dense.data.images import DataError
from flatten_dense.structures import LabelSpace, default_palette

CLASS_FILES = ("classes.txt", "objectInfo150.txt")
_EXAMPLES = 5


def read_labels(
    root: Path,
    classes: Path | None = None,
    num_classes: int | None = None,
    reduce_zero_label: bool = False,
    ignore_index: int = 255,
) -> LabelSpace:
    """Work out the label space of a data folder.

    Args:
        root: the folder; the first of ``CLASS_FILES`` in it is read if no other list is named.
        classes: class list, read by :func:`read_class_list`.
        num_classes: checked against the list; without one it gives the names "class 1", "class 2" and so on.
        reduce_zero_label: whether masks hold 0 for unlabelled and classes from 1.
        ignore_index: label value of pixels that do not count.

    Raises:
        DataError: if the classes are unknown, or the list contradicts ``num_classes`` or ``reduce_zero_label``.
    """
    path = _class_file(root) if classes is None else Path(classes).expanduser()
    if path is not None:
        names, first_index = read_class_list(path)
        _check_first_index(path, first_index, reduce_zero_label)
        if num_classes not in (None, len(names)):
            raise DataError(
                f"--data.num_classes is {num_classes}, but {path} names {len(names)} classes ({first_few(names)}); "
                "correct one of them, or leave --data.num_classes out"
            )
    elif num_classes is not None:
        names = tuple(f"class {index + 1}" for index in range(num_classes))
    elif not root.is_dir():
        raise DataError(f"--data.root {root}: no such folder; expected the one that holds images and annotations")
    else:
        raise DataError(
            f"--data.root {root}: neither {' nor '.join(CLASS_FILES)} is in this folder, so the classes are unknown. "
            "Name a class list with --data.classes FILE (one name per line), or set --data.num_classes K"
        )
    return LabelSpace(names, default_palette(len(names)), reduce_zero_label, ignore_index)


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
    names = read_class_list(path)[0]
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


def read_class_list(path: Path) -> tuple[tuple[str, ...], int | None]:
    """Read class names from a file.

    Args:
        path: one name per line; or a table, tab- or comma-separated, whose header begins with Idx and ends with Name.
            Of a table's synonyms ("building, edifice") the first is taken.

    Returns:
        The names in order, and the index that a table gives the first of them (None for a plain list).

    Raises:
        DataError: if the file cannot be read, a name is missing or repeated, or the indices have gaps.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such class list; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the class list cannot be read ({error}); expected a text file in UTF-8") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    first_index = None
    header = names[0].lower() if names else ""
    if header.startswith("idx") and header.endswith("name"):
        names, first_index = _read_table(path, names)
    if not names or not all(names):
        raise DataError(f"{path}: the class list lacks a name; expected one name per class")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: the class list repeats {first_few(repeated)}; expected a different name per class")
    return tuple(names), first_index


def first_few(items: Sequence[object]) -> str:
    """The first five, for a message."""
    return ", ".join(str(item) for item in items[:_EXAMPLES]) + (", ..." if len(items) > _EXAMPLES else "")


def _read_table(path: Path, lines: list[str]) -> tuple[list[str], int]:
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
    return names, indices[0]


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
