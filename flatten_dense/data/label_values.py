"""The values of mask files held against the classes that they should mean."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flatten_dense.data.images import first_few, read_colours, read_mask
from flatten_dense.structures import LabelSpace, unpack_colour


def read_label_values(path: Path, labels: LabelSpace) -> Tensor:
    """The values of a mask file, ``[H, W]``: numbers, or colours as 0xRRGGBB where the data set's masks are colours.

    Raises:
        DataError: as :func:`flatten_dense.data.images.read_mask` and ``read_colours``.
    """
    return read_colours(path) if labels.colour_masks else read_mask(path)


def outside_classes(mask: Tensor, labels: LabelSpace) -> Tensor:
    """Where a mask of class indices holds neither a class nor ``ignore_index``; bool, of the mask's shape."""
    return ((mask < 0) | (mask >= labels.num_classes)) & (mask != labels.ignore_index)


def describe_labels(labels: LabelSpace) -> str:
    """What a mask file may hold, for a message."""
    count = labels.num_classes
    if labels.colour_masks:
        return f"one of the {len(labels.label_map or ())} colours of the label map"
    if labels.label_map is not None:
        values = first_few(sorted(value for value, _ in labels.label_map))
        return f"the values of the label map ({values}), or {labels.ignore_index} for unlabelled"
    expected = f"0 (unlabelled), 1..{count}" if labels.reduce_zero_label else f"0..{count - 1}"
    return f"{expected}, or {labels.ignore_index} for unlabelled"


def values_outside(path: Path, on_disk: Tensor, outside: Tensor, labels: LabelSpace) -> str:
    """The message about a mask that holds something else than its classes.

    Args:
        path: the mask.
        on_disk: its values ``[H, W]``, as :func:`read_label_values` gives them.
        outside: bool ``[H, W]``, where they are no class.
        labels: the classes.
    """
    values = torch.unique(on_disk[outside]).tolist()
    if labels.colour_masks:
        row, column = outside.nonzero()[0].tolist()
        colour = unpack_colour(int(on_disk[row, column]))
        more = f" and {len(values) - 1} more" if len(values) > 1 else ""
        message = f"{path}: the mask holds the colour {colour}, first at column {column} of row {row},{more}"
    else:
        message = f"{path}: the mask holds {first_few(values)}"
    message += f", outside the {labels.num_classes} classes; expected {describe_labels(labels)}. "
    if values == [labels.num_classes] and labels.label_map is None and not labels.reduce_zero_label:
        return message + "If 0 means unlabelled and classes count from 1, set --data.reduce_zero_label true"
    if labels.label_map is not None:
        return message + "Add it to the label map, or ignore everything that the map does not name by a line '*,ignore'"
    return message + "Correct the mask, or the class list (--data.classes, --data.num_classes)"
