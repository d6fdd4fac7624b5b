from pathlib import Path

import pytest

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.categories import align_labels
from flatten_dense.data.images import DataError
from flatten_dense.structures import DetectionLabels

LABELS = DetectionLabels(("dog", "cat"), ((1, 2, 3), (4, 5, 6)), (18, 17))


def annotations(*used, **categories):
    entries = [{"id": identifier, "name": name} for name, identifier in categories.items()]
    return DetectionAnnotations(Path("val.json"), Path(), [], [{"category_id": category} for category in used], entries)


def test_classes_keep_their_order_and_take_the_files_ids():
    aligned = align_labels(LABELS, annotations(cat=5, dog=900))
    assert aligned.class_names == ("dog", "cat")
    assert aligned.category_ids == (900, 5)
    assert aligned.palette == LABELS.palette


def test_a_class_that_the_file_lacks_keeps_its_id():
    assert align_labels(LABELS, annotations(cat=5)).category_ids == (18, 5)


def test_a_class_that_the_file_lacks_takes_no_id_of_another():
    first, second = align_labels(LABELS, annotations(cat=18)).category_ids
    assert second == 18
    assert first not in (17, 18)


def test_objects_of_an_unknown_class_are_refused():
    with pytest.raises(DataError, match=r"val.json: holds objects of 1 class.* not know: bird; known are dog, cat"):
        align_labels(LABELS, annotations(1, 2, cat=1, bird=2))


def test_an_unknown_class_without_objects_does_no_harm():
    assert align_labels(LABELS, annotations(1, cat=1, bird=2)).category_ids == (18, 1)
