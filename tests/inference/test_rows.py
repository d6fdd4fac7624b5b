import pytest
import torch
import torch.nn.functional as F

from flatten_dense.inference.rows import Rows, resize_rows


def strips(logits, *heights):
    return Rows(tuple(logits.shape[-2:]), iter(logits.transpose(0, 1).split(heights)))


@pytest.mark.parametrize("size", [(92, 124), (23, 31), (200, 31), (23, 90), (10, 12), (1, 1), (457, 311)])
def test_strips_are_resized_as_the_whole(size):
    logits = torch.randn(5, 23, 31, generator=torch.Generator().manual_seed(0))
    resized = torch.cat(list(resize_rows(strips(logits, 1, 15, 7), size).strips)).transpose(0, 1)
    expected = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(resized, expected, atol=2e-5, rtol=0)


def test_strips_of_a_wide_image_are_low():
    logits = torch.zeros(150, 3, 5000)
    heights = [strip.shape[0] for strip in resize_rows(strips(logits, 3), (12, 20_000)).strips]
    assert sum(heights) == 12
    assert max(heights) == 1


def test_no_more_rows_are_taken_than_needed():
    taken = []

    def rows():
        for index in range(100):
            taken.append(index)
            yield torch.full((1, 1, 4), float(index))

    first = next(resize_rows(Rows((100, 4), rows()), (400, 1_000_000)).strips)
    assert first.shape == (2, 1, 1_000_000)
    assert taken == [0, 1]
