import numpy as np
from PIL import Image

from flatten_dense.structures import LabelSpace
from flatten_dense.visualization import legend

LABELS = LabelSpace(("sky", "road"), ((10, 20, 30), (200, 0, 0)))


def count(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(-1).sum())


def test_legend_shows_the_colour_of_every_class_asked_for() -> None:
    assert all(count(legend(LABELS), colour) > 100 for colour in LABELS.palette)
    assert count(legend(LABELS, [1]), LABELS.palette[0]) == 0
