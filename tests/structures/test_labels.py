import json

import pytest
import torch

from flatten_dense.structures import ClassLabels, LabelSpace, default_palette


def space(num_classes: int = 3, **options) -> LabelSpace:
    return LabelSpace(tuple(f"c{i}" for i in range(num_classes)), default_palette(num_classes), **options)


def test_plain_labels_keep_their_values():
    values = torch.tensor([[0, 2], [1, 255]], dtype=torch.uint8)
    assert space().from_disk(values).tolist() == [[0, 2], [1, 255]]


def test_reduced_labels_start_at_one_on_disk():
    assert space(reduce_zero_label=True).from_disk(torch.tensor([0, 1, 3, 255])).tolist() == [255, 0, 2, 255]


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_to_disk_inverts_from_disk(reduce_zero_label):
    labels = space(reduce_zero_label=reduce_zero_label)
    values = torch.arange(4 if reduce_zero_label else 3)
    written = labels.to_disk(labels.from_disk(values))
    assert written.dtype == torch.uint8
    assert written.tolist() == values.tolist()


def test_150_reduced_classes_fit_in_a_byte():
    labels = space(150, reduce_zero_label=True)
    assert labels.to_disk(torch.tensor([149])).tolist() == [150]


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_label_space_survives_plain_types(reduce_zero_label):
    labels = space(reduce_zero_label=reduce_zero_label, ignore_index=254)
    assert LabelSpace.from_dict(labels.to_dict()) == labels


def test_palette_and_names_must_match():
    with pytest.raises(ValueError, match="palette has 2 colours for 3 classes"):
        LabelSpace(("a", "b", "c"), default_palette(2))


def test_no_classes():
    with pytest.raises(ValueError, match="at least one class"):
        LabelSpace((), ())


def test_too_many_classes_for_a_byte():
    with pytest.raises(ValueError, match="256 classes do not fit below ignore_index=255"):
        space(256)


def mapped(**options) -> LabelSpace:
    """Values 7 and 8 are class 0, 24 is class 1, 3 is ignored."""
    return space(2, label_map=((8, 0), (7, 0), (24, 1), (3, 255)), **options)


def test_a_label_map_joins_and_ignores_values():
    values = torch.tensor([[7, 8], [24, 3]], dtype=torch.uint8)
    assert mapped().from_disk(values).tolist() == [[0, 0], [1, 255]]


def test_values_that_the_map_does_not_name_are_no_class():
    assert mapped().from_disk(torch.tensor([0, 1, 65535])).tolist() == [-1, -1, -1]
    assert mapped(ignore_unmapped=True).from_disk(torch.tensor([0, 1, 65535])).tolist() == [255] * 3


def test_ignore_index_needs_no_line_in_the_map():
    assert mapped().from_disk(torch.tensor([255])).tolist() == [255]
    assert space(1, label_map=((255, 0),)).from_disk(torch.tensor([255])).tolist() == [0], "unless it is a class"


def test_the_first_value_of_a_class_is_written():
    written = mapped().to_disk(torch.tensor([[0, 1], [255, 0]]))
    assert written.dtype == torch.uint8
    assert written.tolist() == [[8, 24], [3, 8]]
    assert space(1, label_map=((9, 0),)).to_disk(torch.tensor([255, 0])).tolist() == [255, 9]


def test_values_above_255_are_written_in_16_bits():
    written = space(2, label_map=((846, 0), (65535, 1))).to_disk(torch.tensor([0, 1, 0]))
    assert written.dtype == torch.uint16
    assert written.tolist() == [846, 65535, 846]


def coloured() -> LabelSpace:
    """Pure red and dark red are class 0, 0x010203 is class 1, black is ignored."""
    pairs = ((0xFF0000, 0), (0x800000, 0), (0x010203, 1), (0, 255))
    return LabelSpace(("a", "b"), ((255, 0, 0), (1, 2, 3)), label_map=pairs, colour_masks=True)


def test_colours_are_looked_up():
    packed = torch.tensor([0xFF0000, 0x800000, 0x010203, 0, 0xFFFFFF], dtype=torch.int32)
    assert coloured().from_disk(packed).tolist() == [0, 0, 1, 255, -1]


def test_class_indices_and_a_palette_stand_for_colours():
    labels = coloured()
    indices = labels.to_disk(torch.tensor([0, 1, 255]))
    assert indices.dtype == torch.uint8
    assert [labels.disk_palette[index] for index in indices.tolist()] == [(255, 0, 0), (1, 2, 3), (0, 0, 0)]
    assert len(labels.disk_palette) == 256
    assert mapped().disk_palette is None


@pytest.mark.parametrize("labels", [mapped(ignore_unmapped=True), coloured()])
def test_label_maps_survive_plain_types(labels):
    assert LabelSpace.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


def test_labels_of_an_older_checkpoint_are_read():
    old = {"class_names": ["a"], "palette": [[1, 2, 3]], "reduce_zero_label": True, "ignore_index": 255}
    assert LabelSpace.from_dict(old) == LabelSpace(("a",), ((1, 2, 3),), True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label_map": ((0, 0),)}, "lead to each of the 2 classes"),
        ({"label_map": ((0, 0), (1, 1), (2, 2))}, "nothing else but ignore_index=255; it leads to .0, 1, 2."),
        ({"label_map": ((0, 0), (0, 1))}, "different values"),
        ({"label_map": ((0, 0), (2**16, 1))}, "from 0 to 65535"),
        ({"label_map": ((0, 0), (1, 1)), "reduce_zero_label": True}, "exclude each other"),
        ({"label_map": ((0, 0), (1, 1)), "ignore_index": 256}, "at most 255"),
        ({"colour_masks": True}, "need a label_map"),
    ],
)
def test_a_faulty_map_is_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        space(2, **options)


def test_class_labels_survive_plain_types():
    labels = ClassLabels(("cat", "dog"))
    assert ClassLabels.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


@pytest.mark.parametrize(("names", "reason"), [(("cat",), "at least 2 classes"), (("cat", "cat"), "must differ")])
def test_classes_that_cannot_be_told_apart(names, reason):
    with pytest.raises(ValueError, match=reason):
        ClassLabels(names)
