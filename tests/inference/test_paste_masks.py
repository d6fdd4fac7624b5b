import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image

from flatten_dense.inference.paste_masks import encode_masks

SIZE = (60, 90)
BOXES = torch.tensor(
    [[10.3, 5.7, 40.2, 33.9], [0.0, 0.0, 90.0, 60.0], [70.5, 40.1, 90.0, 60.0], [50.0, 20.0, 51.2, 21.4]]
)


@pytest.fixture
def probabilities():
    coarse = torch.rand(len(BOXES), 1, 5, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=28, mode="bilinear")[:, 0]


def decode(rles):
    return np.stack([coco_mask.decode(rle) for rle in rles]).astype(bool)


def weights(start, stop, side, cells=28):
    position = (np.arange(side) + 0.5 - start) / (stop - start) * cells - 0.5
    return np.clip(1 - np.abs(position[:, None] - np.arange(cells)), 0, None)


def test_masks_are_sampled_at_the_centres_of_pixels(probabilities):
    expected = [
        weights(top, bottom, SIZE[0]) @ mask @ weights(left, right, SIZE[1]).T >= 0.5
        for mask, (left, top, right, bottom) in zip(probabilities.double().numpy(), BOXES.tolist(), strict=True)
    ]
    assert np.array_equal(decode(encode_masks(probabilities, BOXES, SIZE)), np.stack(expected))


def test_with_integer_paste_they_are_torchvisions(probabilities):
    expected = paste_masks_in_image(probabilities[:, None], BOXES, SIZE)[:, 0] >= 0.5
    assert np.array_equal(decode(encode_masks(probabilities, BOXES, SIZE, integer_paste=True)), expected.numpy())


def test_a_mask_leaves_nothing_in_the_next_one():
    boxes = torch.tensor([[0.0, 0, 50, 50], [60, 40, 80, 50]])
    first, second = decode(encode_masks(torch.ones(2, 28, 28), boxes, SIZE))
    assert first.sum() == 50 * 50
    assert second.sum() == 20 * 10


def test_no_detections_give_no_masks():
    assert encode_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE) == []


def test_a_box_thinner_than_a_pixel_is_no_fault():
    boxes = torch.tensor([[30.0, 20.0, 30.0, 25.0]])
    assert decode(encode_masks(torch.ones(1, 28, 28), boxes, SIZE)).shape == (1, *SIZE)
