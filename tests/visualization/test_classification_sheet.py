import numpy as np
import pytest
import torch

from flatten_dense.visualization import ClassifiedPhoto, classification_sheet

RED = (214, 24, 31)


def photo(truth="cat", guess="cat", size=(40, 60)):
    pixels = torch.full((3, *size), 128, dtype=torch.uint8)
    return ClassifiedPhoto(pixels, truth, [(guess, 0.75), ("cow", 0.2)], "photo.jpg")


def colours(picture):
    return {colour for _, colour in picture.getcolors(picture.width * picture.height)}


def test_only_mistakes_are_red():
    assert RED not in colours(classification_sheet([photo()]))
    assert RED in colours(classification_sheet([photo("dog", "cat")]))


def test_a_photo_without_truth_is_not_called_wrong():
    assert RED not in colours(classification_sheet([photo(None, "cat")]))


def test_photos_keep_their_aspect_ratio():
    grey = (128, 128, 128)
    picture = classification_sheet([photo(size=(40, 80))])
    pixels = torch.from_numpy(np.array(picture))
    drawn = (pixels == torch.tensor(grey)).all(-1)
    rows, columns = drawn.any(1).sum(), drawn.any(0).sum()
    assert columns / rows == pytest.approx(2, rel=0.02)


def test_a_grid_of_at_most_36():
    assert classification_sheet([photo()] * 40).size == classification_sheet([photo()] * 36).size


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one photo"):
        classification_sheet([])
