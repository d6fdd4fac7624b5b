from pathlib import Path

import torch

from flatten_dense.data.label_values import describe_labels, outside_classes, values_outside
from flatten_dense.structures import LabelSpace, default_palette


def labels(**options) -> LabelSpace:
    return LabelSpace(("cat", "dog"), default_palette(2), **options)


def test_values_that_are_neither_class_nor_ignored_are_outside():
    assert outside_classes(torch.tensor([-1, 0, 1, 2, 255]), labels()).tolist() == [True, False, False, True, False]


def test_what_masks_may_hold_is_said_as_it_stands_on_disk():
    assert describe_labels(labels()) == "0..1, or 255 for unlabelled"
    assert describe_labels(labels(reduce_zero_label=True)) == "0 (unlabelled), 1..2, or 255 for unlabelled"
    mapped = labels(label_map=((7, 0), (9, 1)))
    assert describe_labels(mapped) == "the values of the label map (7, 9), or 255 for unlabelled"


def test_a_mask_that_counts_from_1_is_told_the_option():
    on_disk = torch.tensor([[1, 2]])
    message = values_outside(Path("a.png"), on_disk, on_disk == 2, labels())
    assert "a.png: the mask holds 2, outside the 2 classes" in message
    assert "--data.reduce_zero_label true" in message
