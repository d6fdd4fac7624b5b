import random

import numpy as np
import pytest
import torch

from flatten_dense.data.classification.transforms import Augmentation, ClassificationTrainTransform
from flatten_dense.structures import Normalization

PLAIN = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PHOTO = torch.arange(3 * 40 * 60, dtype=torch.int64).view(3, 40, 60).remainder(251).to(torch.uint8)


def transform(**options):
    return ClassificationTrainTransform(Augmentation(**{"size": (32, 24), **options}), PLAIN)


def seed(number):
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


def test_size_and_type():
    image = transform()(PHOTO)
    assert (image.shape, image.dtype) == ((3, 32, 24), torch.float32)


def test_without_any_augmentation_the_photo_stays():
    same = {"crop_scale": (1, 1), "crop_ratio": (1, 1), "flip": 0, "auto_augment": None, "color_jitter": 0, "erase": 0}
    square = PHOTO[:, :, :40]
    image = transform(size=(40, 40), **same)(square)
    torch.testing.assert_close(image, square / 255)


def test_images_are_normalised():
    grey = torch.full((3, 20, 20), 51, dtype=torch.uint8)
    still = Augmentation((20, 20), auto_augment=None, color_jitter=0, erase=0)
    image = ClassificationTrainTransform(still, Normalization((0.1, 0.2, 0.3), (0.5, 0.25, 0.1)))(grey)
    torch.testing.assert_close(image[:, 5, 5], torch.tensor([0.2, 0.0, -1.0]))


def test_the_seeds_decide_everything():
    results = []
    for number in (3, 3, 4):
        seed(number)
        results.append(transform()(PHOTO))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_published_policy_is_the_default():
    steps = str(transform().pipeline)
    for part in ("RandAugment(n=2", "RandomErasing(p=0.25, mode=pixel, count=(1, 1))", "bicubic"):
        assert part in steps
    assert "ColorJitter" not in steps  # timm leaves it out where RandAugment is


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": (0, 5)}, "augmentation.size"),
        ({"flip": 1.5}, "augmentation.flip must be a probability"),
        ({"erase": -1}, "augmentation.erase"),
        ({"crop_scale": (0.5, 0.2)}, "augmentation.crop_scale"),
        ({"crop_ratio": (0, 1)}, "augmentation.crop_ratio"),
        ({"auto_augment": "strong"}, "auto_augment strong"),
        ({"interpolation": "cubist"}, "interpolation cubist"),
    ],
)
def test_faulty_options_are_named(options, reason):
    with pytest.raises(ValueError, match=reason):
        transform(**options)
