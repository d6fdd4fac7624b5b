import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.structures import LabelSpace, default_palette
from flatten_dense.visualization import confusion_picture, detection_confusion_picture

BLUE, RED, GREY = (8, 81, 156), (190, 18, 30), (226, 226, 226)


def labels_of(num_classes: int) -> LabelSpace:
    return LabelSpace(tuple(f"class {index}" for index in range(num_classes)), default_palette(num_classes))


def drawn(counts: list[list[int]]) -> np.ndarray:
    """The picture without what stands above the matrix and beside it."""
    picture = confusion_picture(torch.tensor(counts), labels_of(len(counts)))
    return np.asarray(picture)[86:, :-620]


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((pixels == colour).all(-1).sum())


def test_right_is_blue_and_wrong_is_red() -> None:
    assert count(drawn([[5, 0], [0, 7]]), BLUE) == pytest.approx(2 * 84**2, rel=0.1)
    assert count(drawn([[5, 0], [0, 7]]), RED) == 0
    assert count(drawn([[0, 5], [7, 0]]), RED) == pytest.approx(2 * 84**2, rel=0.1)


def test_truth_is_in_the_rows() -> None:
    red_rows = (drawn([[5, 0], [7, 0]]) == RED).all(-1).any(1).nonzero()[0]
    assert red_rows.min() >= 84


def test_each_row_is_normalised_by_its_own_truth() -> None:
    assert np.array_equal(drawn([[6, 2], [1, 1]])[:168], drawn([[6000, 2000], [5, 5]])[:168])


def test_class_without_truth_is_grey() -> None:
    assert count(drawn([[5, 0], [0, 0]]), GREY) > 2 * 83**2


def test_unclassified_column_is_drawn_only_if_there_is_something_in_it() -> None:
    labels = labels_of(2)
    without, empty, filled = (
        confusion_picture(torch.tensor(counts), labels)
        for counts in ([[5, 0], [0, 5]], [[5, 0, 0], [0, 5, 0]], [[5, 0, 0], [0, 5, 1]])
    )
    assert without.tobytes() == empty.tobytes()
    assert filled.width == empty.width + 84


@pytest.mark.parametrize("num_classes", [2, 3, 11, 40, 150, 255])
def test_every_number_of_classes_fits(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(100, (num_classes, num_classes + 1), generator=generator)
    picture = confusion_picture(counts, labels_of(num_classes))
    assert picture.width <= 2400
    assert picture.height <= 1800


def test_largest_shares_are_listed_first() -> None:
    worst_last, worst_first = torch.diag(torch.tensor([10, 20, 30])), torch.diag(torch.tensor([10, 20, 30]))
    worst_last[0, 1], worst_last[2, 1] = 1, 30
    worst_first[2, 1] = 30
    picture, alone = (confusion_picture(counts, labels_of(3)) for counts in (worst_last, worst_first))

    def second_line(picture: Image.Image) -> bytes:
        return picture.crop((picture.width - 600, 86 + 24, picture.width, 86 + 48)).tobytes()

    assert second_line(picture) == second_line(alone)


def test_a_matrix_of_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), expected \(3, 3 or 4\)"):
        confusion_picture(torch.zeros(2, 2), labels_of(3))


def test_missed_objects_are_the_last_column_and_false_detections_the_last_row() -> None:
    picture = detection_confusion_picture(torch.tensor([[0, 0, 4], [0, 5, 0], [3, 0, 0]]), ("cat", "dog"))
    red = (np.asarray(picture)[86:, :-620] == RED).all(-1)
    rows, columns = red.any(1).nonzero()[0], red.any(0).nonzero()[0]
    top_row, bottom_row = red[:84].any(0).nonzero()[0], red[168 : 168 + 84].any(0).nonzero()[0]
    assert top_row.min() > columns.min() + 150
    assert bottom_row.max() < columns.max() - 150
    assert rows.max() < 252


def test_of_many_classes_only_those_that_occur_are_drawn() -> None:
    confusion = torch.zeros(101, 101, dtype=torch.int64)
    confusion[5, 5] = confusion[100, 7] = 3
    names = [f"class {index}" for index in range(100)]
    few = detection_confusion_picture(confusion[[5, 7, 100]][:, [5, 7, 100]], ["class 5", "class 7"])
    assert detection_confusion_picture(confusion, names).tobytes() == few.tobytes()


def test_objects_that_do_not_fit_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), expected \(3, 3\)"):
        detection_confusion_picture(torch.zeros(2, 2), ("cat", "dog"))
