import numpy as np
import pytest
from PIL import Image

from flatten_dense.visualization.layout import Row, lay_out

RED, BLUE = (255, 0, 0), (0, 0, 255)
KEY = Image.new("RGB", (100, 30), "white")


def row(height, width, *colours, caption="", note=""):
    pictures = [Image.new("RGB", (width, height), colour) for colour in colours]
    return Row((height, width), lambda cell: pictures, caption, note)


def area(sheet, colour) -> tuple[int, int]:
    """(width, height) of what has this colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(-1))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def test_pictures_keep_their_aspect():
    sheet = lay_out(("a", "b"), [row(100, 200, RED, BLUE)], KEY)
    assert area(sheet, RED) == area(sheet, BLUE) == (256, 128)


def test_a_drawing_is_told_the_size_of_its_cell():
    cells = []

    def draw(cell):
        cells.append(cell)
        return [KEY, KEY]

    lay_out(("a", "b"), [Row((300, 400), draw, "", "")], KEY, cell_width=(500, 500))
    assert cells == [(375, 500)]


def test_tall_pictures_are_narrowed():
    sheet = lay_out(("a",), [row(1000, 100, RED)], KEY, cell_width=(200, 200), tallest=1.0)
    assert area(sheet, RED) == (20, 200)


@pytest.mark.parametrize("count", [1, 12])
def test_no_sheet_is_larger_than_it_may_be(count):
    rows = [row(300, 300, RED, BLUE, caption="long " * 99, note="longer " * 99) for _ in range(count)]
    assert max(lay_out(("a", "b"), rows, KEY, cell_width=(900, 900), largest_side=1500).size) <= 1500


def test_an_enlarged_picture_keeps_its_pixels_crisp():
    two = Image.new("RGB", (2, 1), RED)
    two.putpixel((1, 0), BLUE)
    sheet = lay_out(("a",), [Row((1, 2), lambda cell: [two], "", "")], KEY)
    assert area(sheet, RED) == area(sheet, BLUE) == (128, 128)
