from pathlib import Path

import pytest

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.faults import Fault, SplitReading, as_problems
from flatten_dense.data.images import DataError

ANNOTATIONS = DetectionAnnotations(Path("train.json"), Path(), [], [], [])


def test_a_reading_without_errors_is_the_split():
    reading = SplitReading(ANNOTATIONS, [Fault("area", "area(s)", "a.jpg", "", "warning")])
    assert reading.require() is ANNOTATIONS


def test_errors_are_told_by_file_and_place_up_to_five():
    reading = SplitReading(
        ANNOTATIONS, [Fault("line", "line(s) without numbers", f"{n}.txt", "line 3") for n in range(7)]
    )
    with pytest.raises(DataError) as error:
        reading.require()
    lines = str(error.value).splitlines()
    assert lines[0] == "train.json: 7 fault(s) in the annotations:"
    assert lines[1] == "  0.txt: line(s) without numbers (line 3)"
    assert lines[6:] == [
        "  and 2 more",
        "Correct the files; `flatten-dense check-data` lists every fault of all splits",
    ]


def test_faults_of_the_same_words_are_one_problem():
    faults = [
        Fault("box", "box(es) outside", "a.jpg", "dog"),
        Fault("size", "photo(s) of another size", "b.jpg"),
        Fault("box", "box(es) outside", "c.jpg", "cat"),
        Fault("box", "box(es) outside", "d.jpg", "cow", "warning"),
    ]
    found = [(p.kind, p.severity, p.split, p.message, p.files) for p in as_problems("val", faults)]
    assert found == [
        ("box", "error", "val", "2 box(es) outside", (("a.jpg", "dog"), ("c.jpg", "cat"))),
        ("size", "error", "val", "1 photo(s) of another size", (("b.jpg", ""),)),
        ("box", "warning", "val", "1 box(es) outside", (("d.jpg", "cow"),)),
    ]
