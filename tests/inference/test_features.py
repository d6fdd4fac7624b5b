import math

import pytest
import torch

from flatten_dense.inference.features import extract_features

IMAGES = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def batches():
    for start in range(0, 7, 3):
        images = IMAGES[start : start + 3]
        paths = [f"{start + index}.png" for index in range(len(images))]
        yield {"image": images, "label": torch.arange(start, start + len(images)), "path": paths}


def test_every_image_has_its_row():
    done = []
    features, labels, paths = extract_features(
        lambda images: images.mean((2, 3)), batches(), 7, torch.device("cpu"), done.append
    )
    torch.testing.assert_close(features, IMAGES.mean((2, 3)))
    assert labels.tolist() == list(range(7))
    assert paths == [f"{index}.png" for index in range(7)]
    assert done == [3, 6, 7]


def test_no_gradients_are_kept():
    layer = torch.nn.Linear(4, 2)
    features, _, _ = extract_features(lambda images: layer(images[:, 0, 0]), batches(), 7, torch.device("cpu"))
    assert not features.requires_grad


def test_features_that_are_not_finite_name_their_photo():
    def broken(images):
        features = images.mean((2, 3))
        return features.where(features != features.max(), math.nan)

    with pytest.raises(ValueError, match=r"\d.png that are not finite"):
        extract_features(broken, batches(), 7, torch.device("cpu"))
