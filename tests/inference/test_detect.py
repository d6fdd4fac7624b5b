import pytest
import torch
from pycocotools import mask as coco_mask

from flatten_dense.heads.detection import RawDetections
from flatten_dense.inference.detect import to_original
from flatten_dense.inference.paste_masks import encode_masks

FOUND = RawDetections(
    torch.tensor([[8.0, 4, 16, 12], [0, 0, 32, 24]]), torch.tensor([0.9, 0.2]), torch.tensor([3, 0]), None
)


def test_each_axis_is_scaled_by_its_own_factor():
    detections = to_original(FOUND, (24, 32), (48, 96), integer_paste=False)
    assert detections.boxes.tolist() == [[24, 8, 48, 24], [0, 0, 96, 48]]


def test_scores_and_labels_stay():
    detections = to_original(FOUND, (24, 32), (48, 96), integer_paste=False)
    assert torch.equal(detections.scores, FOUND.scores)
    assert torch.equal(detections.labels, FOUND.labels)


def test_boxes_alone_have_no_masks():
    assert to_original(FOUND, (24, 32), (48, 96), integer_paste=False).masks is None


def test_masks_are_encoded_at_the_original_size():
    found = FOUND._replace(masks=torch.ones(2, 28, 28))
    masks = to_original(found, (24, 32), (48, 96), integer_paste=False).masks
    assert [mask["size"] for mask in masks] == [[48, 96], [48, 96]]


def test_masks_fill_the_boxes_of_the_original_image():
    found = FOUND._replace(masks=torch.ones(2, 28, 28))
    masks = to_original(found, (24, 32), (48, 96), integer_paste=False).masks
    expected = torch.zeros(48, 96, dtype=torch.uint8)
    expected[8:24, 24:48] = 1
    assert torch.equal(torch.from_numpy(coco_mask.decode(masks[0])), expected)


@pytest.mark.parametrize("integer_paste", [False, True])
def test_masks_are_pasted_as_the_conventions_say(integer_paste):
    masks = torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = FOUND.boxes + 0.3
    found = to_original(FOUND._replace(boxes=boxes, masks=masks), (24, 32), (24, 32), integer_paste)
    assert found.masks == encode_masks(masks, boxes, (24, 32), integer_paste)
    assert found.masks != encode_masks(masks, boxes, (24, 32), not integer_paste)
