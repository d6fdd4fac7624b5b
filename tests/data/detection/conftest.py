"""A toy data set in COCO's layout, in the test's own folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CATEGORIES = [{"id": 7, "name": "zebra"}, {"id": 2, "name": "apple"}]


def rectangle(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def annotation(identifier, image, category, box, **values):
    masks = {"segmentation": rectangle(*box)} | values
    return {"id": identifier, "image_id": image, "category_id": category, "bbox": box, **masks}


def write_split(root: Path, split: str, sizes: list[tuple[int, int]], annotations: list[dict]) -> Path:
    """Photos of (width, height) with ids 10, 20, ... and their annotation file."""
    folder = root / split
    folder.mkdir(parents=True)
    images = []
    for number, (width, height) in enumerate(sizes, start=1):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        images.append({"id": 10 * number, "file_name": f"{number}.png", "height": height, "width": width})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    path = root / f"annotations/instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Training: a landscape photo of two objects and a crowd, a portrait of one object, an empty one, a tiny one."""
    crowd = {"iscrowd": 1, "segmentation": {"size": [48, 64], "counts": [0, 480, 48 * 64 - 480]}}
    train = [
        annotation(1, 10, 7, [8, 4, 20, 16]),
        annotation(2, 10, 2, [40, 20, 20, 24]),
        annotation(3, 10, 2, [0, 0, 10, 48], **crowd),
        annotation(4, 20, 2, [4, 30, 30, 20]),
        annotation(5, 40, 2, [1, 1, 20, 20]),
    ]
    write_split(tmp_path, "train2017", [(64, 48), (40, 60), (50, 50), (40, 31)], train)
    write_split(tmp_path, "val2017", [(64, 48), (40, 60)], [annotation(1, 10, 7, [8, 4, 20, 16], iscrowd=0)])
    return tmp_path
