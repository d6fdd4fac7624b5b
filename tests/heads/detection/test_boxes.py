import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from flatten_dense.heads.detection.boxes import box_l1, clip_boxes, decode_boxes, encode_boxes, has_sides

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count, seed=0):
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * 100
    low, high = corners.amin(1), corners.amax(1) + 1
    return torch.cat([low, high], 1)


def test_encoding_equals_torchvisions():
    boxes, targets = random_boxes(50), random_boxes(50, seed=1)
    torch.testing.assert_close(
        encode_boxes(targets, boxes, WEIGHTS), BoxCoder(WEIGHTS).encode_single(targets, boxes), rtol=1e-4, atol=1e-4
    )


def test_decoding_equals_torchvisions_where_it_clamps_growth_alone():
    boxes, offsets = random_boxes(50), torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * 30
    expected = BoxCoder(WEIGHTS).decode_single(offsets, boxes)
    torch.testing.assert_close(decode_boxes(offsets, boxes, WEIGHTS, clamps_shrinking=False), expected)


def test_decoding_undoes_encoding():
    boxes, targets = random_boxes(50), random_boxes(50, seed=1)
    decoded = decode_boxes(encode_boxes(targets, boxes, WEIGHTS), boxes, WEIGHTS, clamps_shrinking=True)
    torch.testing.assert_close(decoded, targets, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_side_changes_by_62_5_at_most(sign):
    decoded = decode_boxes(torch.tensor([[0.0, 0, sign * 1e4, 0]]), torch.tensor([[0.0, 0, 8, 8]]), WEIGHTS, True)
    assert math.isclose(float(decoded[0, 2] - decoded[0, 0]), 8 * 62.5**sign, rel_tol=1e-4)


def test_several_boxes_of_one_region_are_decoded_by_broadcasting():
    boxes, offsets = random_boxes(3), torch.randn(3, 5, 4)
    decoded = decode_boxes(offsets, boxes[:, None], WEIGHTS, True)
    torch.testing.assert_close(decoded[:, 2], decode_boxes(offsets[:, 2], boxes, WEIGHTS, True))


def test_boxes_are_clipped_to_height_and_width():
    clipped = clip_boxes(torch.tensor([[-5.0, -6, 50, 60]]), (20, 30))
    assert clipped.tolist() == [[0, 0, 30, 20]]


def test_a_corner_that_is_no_number_is_cut_to_the_image_too():
    corners = torch.tensor([[math.nan, -math.inf, math.inf, math.nan]])
    assert clip_boxes(corners, (20, 30)).tolist() == [[0, 0, 30, 0]]


def test_a_box_without_width_has_no_sides_even_where_none_is_asked_for():
    assert has_sides(torch.tensor([[1.0, 1, 1, 5], [1, 1, 2, 2]]), least=0.0).tolist() == [False, True]


def test_sides_may_be_as_short_as_the_least():
    assert has_sides(torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]]), least=2.0).tolist() == [True, False]


def test_beta_zero_is_l1():
    assert float(box_l1(torch.tensor([1.0, 3.0]), torch.tensor([1.5, 1.0]), 0.0)) == 2.5


def test_a_positive_beta_is_quadratic_near_zero():
    assert math.isclose(float(box_l1(torch.tensor([0.1]), torch.zeros(1), 1.0)), 0.005, rel_tol=1e-5)
