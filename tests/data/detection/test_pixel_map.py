import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from flatten_dense.data.detection.masks import encode
from flatten_dense.data.detection.pixel_map import PixelMap

HEIGHT, WIDTH = 24, 32
PHOTO = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
BOX = torch.tensor([[4.0, 6.0, 20.0, 18.0]])
RECTANGLE = [[4.0, 6.0, 20.0, 6.0, 20.0, 18.0, 4.0, 18.0]]
STEPS = {
    "resize": v2.Resize((36, 64)),
    "mirror": v2.RandomHorizontalFlip(1.0),
    "crop": v2.Lambda(lambda inpt: F.crop(inpt, 3, 5, 14, 20)),
    "all": v2.Compose(
        [v2.Resize((48, 64)), v2.Lambda(lambda inpt: F.crop(inpt, 6, 2, 40, 50)), v2.RandomHorizontalFlip(1.0),
         v2.Resize((20, 100)), v2.ColorJitter(0.5), v2.Lambda(lambda inpt: F.crop(inpt, 0, 10, 15, 80))]
    ),
}  # fmt: skip


def after(name, *others):
    return STEPS[name](tv_tensors.Image(PHOTO), PixelMap.of(PHOTO), *others)


@pytest.mark.parametrize("name", STEPS)
def test_boxes_go_where_torchvision_moves_them(name):
    theirs = tv_tensors.BoundingBoxes(BOX, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    _, pixel_map, moved = after(name, theirs)
    torch.testing.assert_close(pixel_map.map_boxes(BOX), F.clamp_bounding_boxes(moved).as_subclass(torch.Tensor))


@pytest.mark.parametrize("name", STEPS)
def test_the_size_is_the_images(name):
    image, pixel_map = after(name)
    assert pixel_map.image_size == image.shape[-2:]


@pytest.mark.parametrize("name", STEPS)
def test_a_rectangle_fills_its_box(name):
    _, pixel_map = after(name)
    left, top, right, bottom = pixel_map.map_boxes(BOX)[0].round().int().tolist()
    expected = torch.zeros(pixel_map.image_size, dtype=torch.bool)
    expected[top:bottom, left:right] = True
    torch.testing.assert_close(pixel_map.map_masks([RECTANGLE], (HEIGHT, WIDTH))[0], expected)


@pytest.mark.parametrize("name", STEPS)
def test_run_lengths_go_where_torchvision_moves_masks(name):
    mask = torch.randint(0, 2, (HEIGHT // 8, WIDTH // 8), dtype=torch.uint8).repeat_interleave(8, 0)
    mask = mask.repeat_interleave(8, 1)
    _, pixel_map, moved = after(name, tv_tensors.Mask(mask))
    encoded = coco_mask.encode(np.asfortranarray(mask.numpy()))
    rle = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    torch.testing.assert_close(pixel_map.map_masks([rle], (HEIGHT, WIDTH))[0], moved.as_subclass(torch.Tensor).bool())


def test_polygons_are_rasterised_as_in_the_whole_image():
    torch.manual_seed(0)
    for _ in range(20):
        star = (torch.rand(14) * 60 - 14).tolist()  # reaches beyond every border
        mask = PixelMap.of(PHOTO).map_masks([[star, RECTANGLE[0]]], (HEIGHT, WIDTH))[0]
        expected = coco_mask.decode(encode([star, RECTANGLE[0]], HEIGHT, WIDTH))
        np.testing.assert_array_equal(mask.numpy(), expected.astype(bool))


def test_boxes_and_masks_outside_are_empty():
    pixel_map = PixelMap.of(PHOTO)
    assert pixel_map.map_boxes(BOX + 100).tolist() == [[32, 24, 32, 24]]
    assert not pixel_map.map_masks([[[x + 100 for x in RECTANGLE[0]]]], (HEIGHT, WIDTH)).any()


def test_no_masks():
    assert PixelMap.of(PHOTO).map_masks([], (HEIGHT, WIDTH)).shape == (0, HEIGHT, WIDTH)
    assert PixelMap.of(PHOTO).map_boxes(torch.zeros(0, 4)).shape == (0, 4)


def test_area_grows_with_the_image():
    assert after("resize")[1].area_factor == pytest.approx(1.5 * 2)
    assert after("mirror")[1].area_factor == 1
