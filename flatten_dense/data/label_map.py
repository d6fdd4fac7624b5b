"""Label maps: which class the values, or the colours, of a data set's masks mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flatten_dense.data.images import DataError, first_few
from flatten_dense.structures import Colour, LabelSpace, default_palette, pack_colour, unpack_colour

IGNORE = "ignore"
EVERY_OTHER = "*"
_GAP = r"\s*[\s,;]\s*"
_COLOUR = _GAP.join([r"(\d+)"] * 3)
_COLOUR_FIRST = re.compile(_COLOUR + _GAP + r"(\S.*)")
_COLOUR_LAST = re.compile(r"(.*\S)" + _GAP + _COLOUR)
_VALUE_FIRST = re.compile(r"(\d+|\*)" + _GAP + r"(\S.*)")
_HEADER_WORDS = {"name", "class", "label", "value", "id", "r", "g", "b", "red", "green", "blue"}


@dataclass(frozen=True)
class LabelMap:
    """What a label map file says.

    Attributes:
        class_names: of the class list given with the file; without one the names of the file, as they first appear.
        pairs: (value, class index or ``ignore_index``), in the order of the file; the values of colours are 0xRRGGBB.
        ignore_unmapped: whether the values that the file does not name are ignored.
        of_colours: whether the file names colours instead of values.
    """

    class_names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    ignore_unmapped: bool
    of_colours: bool

    def label_space(self, palette: Sequence[Colour] | None, ignore_index: int) -> LabelSpace:
        """What masks with these values mean.

        Args:
            palette: colours to draw the classes in; masks of colours have their own.
            ignore_index: as given to :func:`read_label_map`.
        """
        if self.of_colours:
            first = {index: value for value, index in reversed(self.pairs)}
            palette = [unpack_colour(first[index]) for index in range(len(self.class_names))]
        colours = tuple(palette or default_palette(len(self.class_names)))
        return LabelSpace(
            self.class_names, colours, False, ignore_index, self.pairs, self.ignore_unmapped, self.of_colours
        )


def read_label_map(path: Path, class_names: Sequence[str] | None = None, ignore_index: int = 255) -> LabelMap:
    """Read a label map.

    Each line holds a label and the class that it means, separated by a comma, a tab or blanks. The label is a value of
    the masks (``7,road``) or a colour, before or after the class (``128 64 128 road``, ``road,128,64,128``). The class
    is a name, or an index from 0 when ``class_names`` are given; ``ignore`` stands for pixels that do not count. The
    label ``*`` stands for all that the file does not name, and its class must be ``ignore``. A header, empty lines and
    lines that begin with ``#`` are passed over.

    Args:
        path: the file.
        class_names: the classes, in order; None takes the names of the file, in the order of their first lines.
        ignore_index: label of pixels that do not count.

    Raises:
        DataError: if the file cannot be read, a line cannot be understood, a label appears twice, or a class is
            unknown or gets no label.
    """
    rows, of_colours = _read_rows(path)
    if class_names is None:
        class_names = tuple(dict.fromkeys(name for _, name, _ in rows if name.lower() != IGNORE))
        if not class_names:
            raise DataError(f"{path}: the label map names no class, only {IGNORE!r}; expected lines like 7,road")
    pairs: dict[int, int] = {}
    ignore_unmapped = False
    for label, name, line in rows:
        index = _class_index(path, name, class_names, ignore_index)
        if label == EVERY_OTHER:
            if index != ignore_index:
                raise DataError(f"{path}: the line {line!r} gives every other label a class; only '*,ignore' can be")
            ignore_unmapped = True
            continue
        value = pack_colour(label) if isinstance(label, tuple) else int(label)
        if value in pairs:
            raise DataError(f"{path}: the line {line!r} names a label that an earlier line has; remove one of them")
        pairs[value] = index
    unreached = [name for index, name in enumerate(class_names) if index not in pairs.values()]
    if unreached:
        raise DataError(
            f"{path}: no label leads to the class(es) {first_few(unreached)}; add a line for each, or name a class "
            "list without them (--data.classes)"
        )
    return LabelMap(tuple(class_names), tuple(pairs.items()), ignore_unmapped, of_colours)


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file, without the blanks around them, empty lines and notes (``# ...``).

    Raises:
        DataError: if it is missing or not text in UTF-8; ``what`` is how the message calls it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such {what}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the {what} cannot be read ({error}); expected a text file in UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def parse_coloured(line: str) -> tuple[Colour, str] | None:
    """Split ``r g b name`` or ``name r g b``, with commas, tabs or blanks between; None if the line is neither."""
    if match := _COLOUR_FIRST.fullmatch(line):
        red, green, blue, name = match.groups()
    elif match := _COLOUR_LAST.fullmatch(line):
        name, red, green, blue = match.groups()
    else:
        return None
    return (int(red), int(green), int(blue)), name.strip(" ,;\t")


def is_header(line: str) -> bool:
    """Whether a line names columns, such as ``r,g,b,name``, instead of being a row."""
    words = re.split(_GAP, line.lower())
    return len(words) > 1 and set(words) <= _HEADER_WORDS


def _read_rows(path: Path) -> tuple[list[tuple[Colour | str, str, str]], bool]:
    """(label, class, line) of each row, and whether the labels are colours."""
    lines = read_lines(path, "label map")
    if lines and is_header(lines[0]):
        del lines[0]
    of_colours = any(parse_coloured(line) for line in lines)
    expected = "'r g b class' like 128 64 128 road" if of_colours else "'value,class' like 7,road"
    rows: list[tuple[Colour | str, str, str]] = []
    for line in lines:
        coloured, valued = parse_coloured(line), _VALUE_FIRST.fullmatch(line)
        if coloured and max(coloured[0]) < 256:
            rows.append((*coloured, line))
        elif valued and (not of_colours or valued[1] == EVERY_OTHER) and int(valued[1].replace("*", "0")) < 2**16:
            rows.append((valued[1], valued[2], line))
        else:
            raise DataError(
                f"{path}: the line {line!r} cannot be understood; expected {expected}, or '*,ignore' for every other "
                f"label. {'Colours go to 255' if of_colours else 'Values go to 65535'}"
            )
    if not rows:
        raise DataError(f"{path}: the label map is empty; expected lines like 7,road or 128 64 128 road")
    return rows, of_colours


def _class_index(path: Path, name: str, class_names: Sequence[str], ignore_index: int) -> int:
    if name.lower() == IGNORE:
        return ignore_index
    if name in class_names:
        return class_names.index(name)
    if name.isdecimal() and (int(name) < len(class_names) or int(name) == ignore_index):
        return int(name)
    close = difflib.get_close_matches(name, class_names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the classes are {first_few(class_names)}."
    raise DataError(
        f"{path}: there is no class {name!r} in the class list; {hint} Write a name of the list, an index from 0 to "
        f"{len(class_names) - 1}, or 'ignore'"
    )
