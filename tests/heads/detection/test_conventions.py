import pytest

from flatten_dense.heads.detection.conventions import CONVENTIONS, conventions_of


@pytest.mark.parametrize(("name", "background"), [("mmdet", 80), ("torchvision", 0)])
def test_background_is_last_in_mmdet_and_first_in_torchvision(name, background):
    assert CONVENTIONS[name].background_of(80) == background


@pytest.mark.parametrize(("name", "outputs"), [("mmdet", 80), ("torchvision", 81)])
def test_torchvision_predicts_a_box_of_the_background_too(name, outputs):
    assert CONVENTIONS[name].outputs_of(80) == outputs


def test_unknown_conventions_are_refused_by_name():
    with pytest.raises(ValueError, match=r"one of mmdet, torchvision, got 'detectron2'"):
        conventions_of("detectron2")
