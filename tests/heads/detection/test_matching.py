import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from flatten_dense.heads.detection.matching import IGNORED, NO_OBJECT, match, sample

OBJECTS = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])


def test_boxes_above_below_and_between_the_thresholds():
    boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 5], [0, 0, 10, 2]])  # IoU 0.9, 0.5, 0.2
    assert match(boxes, OBJECTS, 0.7, 0.3).tolist() == [0, IGNORED, NO_OBJECT]


def test_without_objects_all_is_background():
    assert match(OBJECTS, torch.zeros(0, 4), 0.5, 0.5).tolist() == [NO_OBJECT, NO_OBJECT]


def test_the_best_box_of_an_object_is_matched_below_the_threshold():
    boxes = torch.tensor([[20.0, 20, 40, 28], [20, 20, 40, 27]])  # IoU 0.4, 0.35
    assert match(boxes, OBJECTS, 0.7, 0.3, low_quality_floor=0.3).tolist() == [1, IGNORED]


def test_not_below_the_floor():
    boxes = torch.tensor([[20.0, 20, 40, 24]])  # IoU 0.2
    assert match(boxes, OBJECTS, 0.7, 0.3, low_quality_floor=0.3).tolist() == [NO_OBJECT]


def test_an_object_that_no_box_touches_takes_none():
    boxes = torch.tensor([[100.0, 100, 110, 110]])
    assert match(boxes, OBJECTS, 0.5, 0.4, low_quality_floor=0.0).tolist() == [NO_OBJECT]


@pytest.mark.parametrize(("takes_over", "expected"), [(True, 1), (False, 0)])
def test_whether_a_best_box_goes_to_the_object_that_has_no_other(takes_over, expected):
    # The one box overlaps the first object more, and is the best there is for the second.
    objects, box = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20]]), torch.tensor([[0.0, 0, 10, 11]])
    assert match(box, objects, 0.7, 0.3, 0.3, takes_over).tolist() == [expected]


def test_the_last_object_wins_a_box_that_is_the_best_of_several():
    objects = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    assert match(objects[:1], objects, 0.7, 0.3, low_quality_floor=0.3).tolist() == [1]


def test_without_taking_over_it_equals_torchvisions_matcher():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(500, 2, generator=generator) * 80
    boxes = torch.cat([low, low + 5 + 40 * torch.rand(500, 2, generator=generator)], 1)
    objects = boxes[::97] + 3
    expected = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(objects, boxes))
    assert torch.equal(match(boxes, objects, 0.7, 0.3, 0.0, low_quality_takes_over=False), expected)


def test_a_sample_has_no_more_positives_than_their_share():
    matched = torch.cat([torch.zeros(50, dtype=torch.int64), torch.full((100,), NO_OBJECT)])
    positive, negative = sample(matched, 20, 0.25)
    assert (len(positive), len(negative)) == (5, 15)


def test_negatives_fill_up_where_positives_are_few():
    matched = torch.cat([torch.zeros(2, dtype=torch.int64), torch.full((100,), NO_OBJECT)])
    positive, negative = sample(matched, 20, 0.5)
    assert (len(positive), len(negative)) == (2, 18)


def test_ignored_boxes_are_never_drawn():
    positive, negative = sample(torch.tensor([IGNORED, 0, NO_OBJECT, IGNORED]), 10, 0.5)
    assert (positive.tolist(), negative.tolist()) == ([1], [2])


def test_the_draw_differs_from_time_to_time():
    matched = torch.full((1000,), NO_OBJECT)
    torch.manual_seed(0)
    assert sample(matched, 10, 0.5)[1].tolist() != sample(matched, 10, 0.5)[1].tolist()
