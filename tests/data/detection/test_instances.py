import numpy as np
import torch
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from flatten_dense.data.detection.instances import Instances
from flatten_dense.data.detection.pixel_map import PixelMap

PHOTO = tv_tensors.Image(torch.zeros(3, 40, 60, dtype=torch.uint8))
INSTANCES = Instances(
    boxes=torch.tensor([[2.0, 2, 12, 10], [30, 10, 50, 30], [55, 35, 60, 40]]),
    labels=torch.tensor([4, 1, 4]),
    area=torch.tensor([80.0, 400, 25]),
    iscrowd=torch.tensor([False, False, True]),
    segmentations=[[[2.0, 2, 12, 2, 12, 10, 2, 10]], None, {"size": [40, 60], "counts": "P[2"}],
    photo_size=(40, 60),
)


def cropped(top, left, height, width):
    return F.crop(PixelMap.of(PHOTO), top, left, height, width)


def test_objects_outside_a_crop_are_left_out_and_others_clipped():
    target = INSTANCES.training_target(cropped(0, 10, 20, 25), with_masks=False)
    assert target["boxes"].tolist() == [[0, 2, 2, 10], [20, 10, 25, 20]]
    assert target["labels"].tolist() == [4, 1]
    assert set(target) == {"boxes", "labels", "area", "iscrowd"}


def test_an_object_that_touches_a_crop_is_outside():
    assert INSTANCES.training_target(cropped(0, 12, 10, 18), with_masks=True)["boxes"].shape == (0, 4)


def test_a_crop_may_hold_nothing():
    target = INSTANCES.training_target(cropped(12, 0, 8, 8), with_masks=True)
    assert {name: tuple(values.shape) for name, values in target.items()} == {
        "boxes": (0, 4), "labels": (0,), "area": (0,), "iscrowd": (0,), "masks": (0, 8, 8)
    }  # fmt: skip


def test_masks_stay_with_their_boxes():
    target = INSTANCES.training_target(cropped(1, 1, 39, 59), with_masks=True)
    expected = torch.zeros(39, 59, dtype=torch.bool)
    expected[1:9, 1:11] = True
    assert target["masks"].dtype == torch.bool
    assert torch.equal(target["masks"][0], expected)
    assert not target["masks"][1].any()  # has none


def test_areas_grow_with_the_image():
    target = INSTANCES.training_target(F.resize(PixelMap.of(PHOTO), [80, 180]), with_masks=False)
    torch.testing.assert_close(target["area"], INSTANCES.area * 6)


def test_evaluation_shows_all_objects_as_annotated():
    target = INSTANCES.evaluation_target(with_masks=True)
    assert torch.equal(target["boxes"], INSTANCES.boxes)
    assert target["iscrowd"].tolist() == [False, False, True]
    masks = [coco_mask.decode(rle) for rle in target["masks"]]
    assert [mask.shape for mask in masks] == [(40, 60)] * 3
    assert [int(mask.sum()) for mask in masks] == [80, 0, 0]
    assert np.argwhere(masks[0]).min(0).tolist() == [2, 2]


def test_evaluation_without_masks():
    assert "masks" not in INSTANCES.evaluation_target(with_masks=False)
