import torch

from flatten_dense.callbacks.coco_rows import result_rows
from flatten_dense.structures import Detections

FOUND = Detections(torch.tensor([[10.0, 20, 40, 60], [0, 0, 5, 5]]), torch.tensor([0.75, 0.5]), torch.tensor([1, 0]))


def test_rows_have_the_categories_own_numbers_and_corners_become_sizes():
    assert result_rows(FOUND, 8, (90, 3)) == [
        {"image_id": 8, "category_id": 3, "bbox": [10, 20, 30, 40], "score": 0.75},
        {"image_id": 8, "category_id": 90, "bbox": [0, 0, 5, 5], "score": 0.5},
    ]


def test_each_row_has_its_mask():
    masks = [{"size": [9, 9], "counts": b"first"}, {"size": [9, 9], "counts": b"second"}]
    assert [row["segmentation"] for row in result_rows(FOUND._replace(masks=masks), 8, (90, 3))] == masks
