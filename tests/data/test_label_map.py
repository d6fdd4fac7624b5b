from pathlib import Path

import pytest

from flatten_dense.data.images import DataError
from flatten_dense.data.label_map import LabelMap, read_label_map

DOCS = Path(__file__).parents[2] / "docs" / "labels"


@pytest.fixture
def read(tmp_path):
    """Read a map of this text."""

    def run(text: str, *args) -> LabelMap:
        (tmp_path / "map.txt").write_text(text, encoding="utf-8")
        return read_label_map(tmp_path / "map.txt", *args)

    return run


@pytest.mark.parametrize("gap", [",", ", ", "\t", " ", ";", " \t\t"])
def test_values_are_followed_by_the_class(read, gap):
    found = read(f"7{gap}road\n24{gap}traffic sign\n8{gap}road\n")
    assert found == LabelMap(("road", "traffic sign"), ((7, 0), (24, 1), (8, 0)), False, False)


@pytest.mark.parametrize(
    "row", ["128 64 3 road", "128,64,3,road", "road,128,64,3", "128 64 3\t\troad", "road 128 64 3"]
)
def test_colours_stand_before_or_after_the_class(read, row):
    assert read(f"0 0 0 sky\n{row}\n") == LabelMap(("sky", "road"), ((0, 0), (0x804003, 1)), False, True)


@pytest.mark.parametrize("header", ["value,class\n", "# a note\n", "id;name\n\n", "\ufeff"])
def test_header_and_notes_are_passed_over(read, header):
    assert read(header + "3,cat\n").pairs == ((3, 0),)


def test_ignored_labels_have_the_ignore_index(read):
    assert read("3,cat\n4,Ignore\n5,200\n", None, 200) == LabelMap(
        ("cat", "200"), ((3, 0), (4, 200), (5, 1)), False, False
    )
    assert read("3,cat\n4,200\n", ["cat"], 200).pairs == ((3, 0), (4, 200))


@pytest.mark.parametrize("text", ["3,cat\n*,ignore\n", "* ignore\n3 cat\n"])
def test_every_other_value_can_be_ignored(read, text):
    assert read(text) == LabelMap(("cat",), ((3, 0),), True, False)


def test_every_other_colour_can_be_ignored(read):
    assert read("1 2 3 cat\n* ignore\n") == LabelMap(("cat",), ((0x010203, 0),), True, True)


def test_given_classes_keep_their_order_and_may_be_numbered(read):
    assert read("1,dog\n2,0\n", ["cat", "dog"]) == LabelMap(("cat", "dog"), ((1, 1), (2, 0)), False, False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("value,class\n", "empty"),
        ("road\n", "line 'road' cannot be understood; expected 'value,class'"),
        ("seven,road\n", "'seven,road' cannot be understood"),
        ("7,cat\n1 2 3 dog\n", "'7,cat' cannot be understood; expected 'r g b class'"),
        ("1 2 300 dog\n", "Colours go to 255"),
        ("65536,dog\n", "Values go to 65535"),
        ("7,cat\n7,dog\n", "'7,dog' names a label that an earlier line has"),
        ("7,cat\n*,dog\n", "gives every other label a class"),
        ("7,ignore\n", "names no class"),
    ],
)
def test_faulty_map_is_refused(read, text, reason):
    with pytest.raises(DataError, match=rf"map\.txt: .*{reason}"):
        read(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("7,cat\n8,dgo\n", "no class 'dgo' in the class list; did you mean 'dog'"),
        ("7,cat\n8,2\n", "no class '2'.*an index from 0 to 1"),
        ("7,cat\n", r"no label leads to the class\(es\) dog"),
    ],
)
def test_map_must_fit_the_class_list(read, text, reason):
    with pytest.raises(DataError, match=reason):
        read(text, ["cat", "dog"])


def test_missing_map_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no\.txt: no such label map"):
        read_label_map(tmp_path / "no.txt")


def test_classes_of_colours_are_drawn_in_their_first_colour(read):
    labels = read("9 9 9 dog\n1 2 3 cat\n4 5 6 dog\n7 7 7 ignore\n", ["cat", "dog"]).label_space(None, 255)
    assert labels.palette == ((1, 2, 3), (9, 9, 9))
    assert labels.colour_masks


def test_classes_of_values_are_drawn_in_the_given_colours(read):
    labels = read("3,cat\n*,ignore\n").label_space([(1, 2, 3)], 250)
    assert (labels.palette, labels.ignore_index, labels.ignore_unmapped) == (((1, 2, 3),), 250, True)


@pytest.mark.skipif(not DOCS.is_dir(), reason="an sdist has no docs")
@pytest.mark.parametrize(("name", "labels", "classes"), [("cityscapes.csv", 34, 19), ("camvid11.txt", 32, 11)])
def test_the_maps_of_the_documentation_are_complete(name, labels, classes):
    found = read_label_map(DOCS / name)
    assert (len(found.pairs), len(found.class_names)) == (labels, classes)
    assert 255 in dict(found.pairs).values()
