from dataclasses import asdict

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


@pytest.mark.parametrize(
    ("question", "mmdet", "torchvision"),
    [
        ("rounded_anchors", False, True),
        ("strides_of_image", False, True),
        ("padding_is_image", False, True),
        ("smooth_l1_beta", 0.0, 1 / 9),
        ("clamps_shrinking", True, False),
        ("low_quality_floor", 0.3, 0.0),
        ("low_quality_takes_over", True, False),
        ("low_quality_regions", True, False),
        ("train_proposals", 1000, 2000),
        ("least_proposal", 0.0, 1e-3),
        ("least_detection", 0.0, 1e-2),
        ("sampling_ratio", 0, 2),
        ("aligned", True, False),
        ("binary_masks", True, False),
        ("integer_paste", False, True),
        ("retinanet_detections", 100, 300),
        ("losses_per_image", False, True),
        ("published_weights", True, False),
    ],
)
def test_where_they_differ_each_answers_as_its_source_does(question, mmdet, torchvision):
    assert [getattr(CONVENTIONS[name], question) for name in ("mmdet", "torchvision")] == [mmdet, torchvision]


def test_no_question_is_answered_alike():
    mmdet, torchvision = (asdict(CONVENTIONS[name]) for name in ("mmdet", "torchvision"))
    assert [question for question in mmdet if mmdet[question] == torchvision[question]] == []
