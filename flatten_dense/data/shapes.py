"""The embedded data set: scenes of textured shapes, written to disk in the ADE20K, COCO and ImageFolder layouts."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from flatten_dense.data.shape_scenes import CLASS_NAMES, MIN_SIDE, Instance, Scene, draw_scene

__all__ = ["CATEGORY_IDS", "CLASS_NAMES", "FORMAT_VERSION", "Instance", "Scene", "draw_scene", "write_shapes"]

# Part of the parameters on disk: raise it when the scenes or the layouts change, so that old folders are not re-used.
FORMAT_VERSION = 1
PARAMETERS_FILE = "shapes.json"
# COCO category ids. With gaps, as in COCO itself, so that code that takes ids for class indices fails here too.
CATEGORY_IDS: dict[str, int] = {name: 2 * index + 1 for index, name in enumerate(CLASS_NAMES[1:])}
CROP_MIN_SIDE = 20  # pixels; smaller objects are too coarse for a picture of their own
CROP_MARGIN = 0.15  # of the object's longer side, on each side


@dataclass
class _Split:
    """One split: its name in each layout, and what goes into its COCO file."""

    index: int
    num_scenes: int
    ade20k: str
    coco: str
    image_folder: str
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def make_folders(self, root: Path) -> None:
        """Make every folder of the split, classes without a crop included: class indices must not depend on luck."""
        for folder in (f"ade20k/images/{self.ade20k}", f"ade20k/annotations/{self.ade20k}", f"coco/{self.coco}"):
            (root / folder).mkdir(parents=True)
        for name in CLASS_NAMES[1:]:
            (root / "imagefolder" / self.image_folder / name).mkdir(parents=True)
        (root / "coco/annotations").mkdir(exist_ok=True)

    def write_scene(self, root: Path, number: int, scene: Scene) -> None:
        """Write the images of one scene in all layouts and note its COCO annotations."""
        name = f"scene_{number:05d}.png"
        png = _encode_png(scene.image)
        (root / "ade20k/images" / self.ade20k / name).write_bytes(png)
        (root / "ade20k/annotations" / self.ade20k / name).write_bytes(_encode_png(scene.semantic))
        (root / "coco" / self.coco / name).write_bytes(png)
        height, width = scene.semantic.shape
        image_id = number + 1
        self.images.append({"id": image_id, "file_name": name, "height": height, "width": width, "license": 1})
        for order, instance in enumerate(scene.instances):
            annotation = _coco_annotation(instance)
            self.annotations.append({"id": len(self.annotations) + 1, "image_id": image_id, **annotation})
            crop = _crop(scene, instance, annotation["bbox"])
            if crop is not None:
                folder = root / "imagefolder" / self.image_folder / CLASS_NAMES[instance.category]
                (folder / f"scene_{number:05d}_{order}.png").write_bytes(_encode_png(crop))

    def write_coco_file(self, root: Path) -> None:
        """Write the annotations of all scenes so far, once the last one is drawn."""
        contents = {
            "info": {
                "description": "Textured shapes, drawn by flatten_dense",
                "version": str(FORMAT_VERSION),
            },
            "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": id_, "name": name, "supercategory": "shape"} for name, id_ in CATEGORY_IDS.items()],
        }
        (root / "coco/annotations" / f"instances_{self.coco}.json").write_text(json.dumps(contents), encoding="utf-8")


def _encode_png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    # Noisy pixels hold no strings worth searching for: this is twice as fast as the default, and no larger.
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return stream.getvalue()


def _coco_annotation(instance: Instance) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(instance.mask, dtype=np.uint8))
    return {
        "category_id": CATEGORY_IDS[CLASS_NAMES[instance.category]],
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": int(coco_mask.area(rle)),
        "iscrowd": 0,
    }


def _crop(scene: Scene, instance: Instance, bbox: list[float]) -> NDArray[np.uint8] | None:
    """A square around the object, cut at the image's edge; None if the object is small or not the largest in there."""
    x, y, width, height = bbox
    if min(width, height) < CROP_MIN_SIDE:
        return None
    half = max(width, height) * (0.5 + CROP_MARGIN)
    top, left = max(0, round(y + height / 2 - half)), max(0, round(x + width / 2 - half))
    window = slice(top, round(y + height / 2 + half)), slice(left, round(x + width / 2 + half))
    largest = max(int(other.mask[window].sum()) for other in scene.instances)
    return scene.image[window] if int(instance.mask.sum()) == largest else None


def _check_parameters(parameters: dict[str, Any]) -> None:
    for name in ("num_train", "num_val"):
        if parameters[name] < 1:
            raise ValueError(f"{name} must be at least 1 scene, got {parameters[name]}")
    if len(parameters["image_size"]) != 2 or min(parameters["image_size"]) < MIN_SIDE:
        raise ValueError(f"image_size must be (H, W), each at least {MIN_SIDE} pixels, got {parameters['image_size']}")
    if parameters["seed"] < 0:
        raise ValueError(f"seed must be 0 or more, got {parameters['seed']}")


def _is_written(root: Path, parameters: dict[str, Any]) -> bool:
    """Whether ``root`` already holds this very data set; False if it is missing or empty.

    Raises:
        ValueError: if anything else is there.
    """
    remedy = "it is left as it is; choose another folder, or remove this one yourself"
    if not root.exists():
        return False
    if not root.is_dir():
        raise ValueError(f"{root} is a file, expected a folder for the shapes data set; {remedy}")
    found = sorted(entry.name for entry in root.iterdir())
    if not found:
        return False
    if PARAMETERS_FILE not in found:
        listing = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise ValueError(f"{root} is not empty and holds no shapes data set (found {listing}); {remedy}")
    try:
        written = json.loads((root / PARAMETERS_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{root / PARAMETERS_FILE} cannot be read ({error}); {remedy}") from error
    if written != parameters:
        raise ValueError(f"{root} holds shapes made with {written}, but {parameters} was asked for; {remedy}")
    return True


def write_shapes(
    root: str | Path,
    num_train: int = 500,
    num_val: int = 100,
    image_size: tuple[int, int] = (128, 128),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the data set, or re-use it when ``root`` already holds it; nothing that exists is ever changed.

    The layouts hold the same scenes::

        root/ade20k/images/{training,validation}/scene_00000.png
             ade20k/annotations/{training,validation}/scene_00000.png   indices into classes.txt, 0 is the background
             ade20k/classes.txt
             coco/{train2017,val2017}/scene_00000.png
             coco/annotations/instances_{train2017,val2017}.json        category ids as in CATEGORY_IDS
             imagefolder/{train,val}/CLASS/scene_00000_0.png            one crop per object that is large enough
             shapes.json                                                the parameters, for re-use

    A scene depends on the seed, the split and its number alone, so a larger data set begins with the smaller one. The
    folder appears under its name only when it is complete.

    Args:
        root: the folder to make. Its parents are made too.
        num_train: scenes in the training split.
        num_val: scenes in the validation split.
        image_size: (H, W) in pixels.
        seed: 0 or more.
        progress: called as ``progress(done, total)`` after each scene.

    Returns:
        ``root``.

    Raises:
        ValueError: if a parameter is out of range, or ``root`` holds anything but this data set.
    """
    root = Path(root)
    parameters: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": list(image_size),
        "seed": seed,
        "class_names": list(CLASS_NAMES),
    }
    _check_parameters(parameters)
    if _is_written(root, parameters):
        return root

    target = root.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        draft = Path(temporary) / "shapes"
        draft.mkdir()
        _write_layouts(draft, parameters, progress)
        try:
            os.replace(draft, target)
        except OSError:
            if not _is_written(root, parameters):  # another process may have just written the same
                raise
    return root


def _write_layouts(root: Path, parameters: dict[str, Any], progress: Callable[[int, int], None] | None) -> None:
    splits = (
        _Split(0, parameters["num_train"], "training", "train2017", "train"),
        _Split(1, parameters["num_val"], "validation", "val2017", "val"),
    )
    done, total = 0, sum(split.num_scenes for split in splits)
    for split in splits:
        split.make_folders(root)
        for number in range(split.num_scenes):
            rng = np.random.default_rng([parameters["seed"], split.index, number])
            split.write_scene(root, number, draw_scene(rng, tuple(parameters["image_size"])))
            done += 1
            if progress is not None:
                progress(done, total)
        split.write_coco_file(root)
    (root / "ade20k/classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
    (root / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
