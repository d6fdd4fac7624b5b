import pytest
import torch

from flatten_dense.structures import LabelSpace
from flatten_dense.visualization import colorize, overlay

LABELS = LabelSpace(("sky", "road"), ((10, 20, 30), (200, 0, 0)))


def test_colorize_paints_palette_colours_and_leaves_ignored_black() -> None:
    painted = colorize(torch.tensor([[0, 1, 255]]), LABELS)
    assert painted.dtype == torch.uint8
    assert painted[:, 0].T.tolist() == [[10, 20, 30], [200, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("wrong", [2, -1])
def test_colorize_refuses_what_is_no_class(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"holds {wrong}, expected 0\.\.1 or 255"):
        colorize(torch.tensor([[0, wrong]]), LABELS)


def test_overlay_blends_and_leaves_ignored_pixels_of_the_photo() -> None:
    image = torch.full((3, 1, 2), 100, dtype=torch.uint8)
    blended = overlay(image, torch.tensor([[1, 255]]), LABELS, alpha=0.25)
    assert blended.dtype == torch.uint8
    assert blended[:, 0].T.tolist() == [[125, 75, 75], [100, 100, 100]]


def test_overlay_refuses_a_mask_of_another_size() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        overlay(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 5, dtype=torch.int64), LABELS)


def test_overlay_refuses_alpha_outside_its_range() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, got 2"):
        overlay(torch.zeros(3, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, dtype=torch.int64), LABELS, alpha=2)
