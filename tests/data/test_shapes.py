import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import ImageFolder

from flatten_dense.data.shapes import CATEGORY_IDS, CLASS_NAMES, draw_scene, write_shapes

NUM_TRAIN, NUM_VAL = 60, 20
SPLITS = pytest.mark.parametrize(
    ("ade20k", "coco", "image_folder", "count"),
    [("training", "train2017", "train", NUM_TRAIN), ("validation", "val2017", "val", NUM_VAL)],
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", NUM_TRAIN, NUM_VAL)


def read(path):
    with Image.open(path) as image:
        return np.array(image)


def read_split(root, split):
    """Every image ``[S, H, W, 3]`` and mask ``[S, H, W]`` of a split in the ADE20K layout."""
    images = sorted((root / "ade20k/images" / split).iterdir())
    masks = [root / "ade20k/annotations" / split / path.name for path in images]
    return np.stack([read(path) for path in images]), np.stack([read(path) for path in masks])


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def mean_iou(truth, prediction):
    k = len(CLASS_NAMES)
    confusion = np.bincount(k * truth.ravel().astype(int) + prediction.ravel(), minlength=k * k).reshape(k, k)
    return float(np.mean(confusion.diagonal() / (confusion.sum(0) + confusion.sum(1) - confusion.diagonal())))


# ADE20K layout


@SPLITS
def test_every_ade20k_image_has_its_mask(root, ade20k, coco, image_folder, count):
    images = sorted(path.name for path in (root / "ade20k/images" / ade20k).iterdir())
    assert images == sorted(path.name for path in (root / "ade20k/annotations" / ade20k).iterdir())
    assert images[0] == "scene_00000.png"
    assert len(images) == count


def test_ade20k_files_hold_what_was_drawn(root):
    images, masks = read_split(root, "validation")
    for number in range(NUM_VAL):
        scene = draw_scene(np.random.default_rng([0, 1, number]), (128, 128))
        np.testing.assert_array_equal(images[number], scene.image)
        np.testing.assert_array_equal(masks[number], scene.semantic)


def test_class_names_are_in_the_order_of_the_labels(root):
    assert (root / "ade20k/classes.txt").read_text().splitlines() == list(CLASS_NAMES)


def test_splits_share_no_scene(root):
    train, val = read_split(root, "training")[0], read_split(root, "validation")[0]
    assert len(np.unique(np.concatenate([train, val]).reshape(NUM_TRAIN + NUM_VAL, -1), axis=0)) == NUM_TRAIN + NUM_VAL


@pytest.mark.parametrize("balanced", [False, True])
def test_colour_does_not_tell_the_class(root, balanced):
    """The best class per colour, on the pixels it was chosen from and on new ones; with and without class weights."""
    (image, mask), (val_image, val_mask) = read_split(root, "training"), read_split(root, "validation")
    bins, val_bins = ((pixels // 16).astype(int) @ (256, 16, 1) for pixels in (image, val_image))
    counts = np.zeros((4096, len(CLASS_NAMES)))
    np.add.at(counts, (bins.ravel(), mask.ravel()), 1)
    best = np.argmax(counts / counts.sum(0) if balanced else counts, axis=1)
    assert mean_iou(mask, best[bins]) < 0.40
    assert mean_iou(val_mask, best[val_bins]) < 0.40


# COCO layout


@SPLITS
def test_coco_annotations_are_the_objects_of_the_mask(root, ade20k, coco, image_folder, count):
    api = COCO(root / "coco/annotations" / f"instances_{coco}.json")
    index_of = {category["id"]: CLASS_NAMES.index(category["name"]) for category in api.loadCats(api.getCatIds())}
    assert len(api.getImgIds()) == count
    for image in api.loadImgs(api.getImgIds()):
        composed = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in api.loadAnns(api.getAnnIds(image["id"])):
            mask = api.annToMask(annotation).astype(bool)
            assert not composed[mask].any()
            composed[mask] = index_of[annotation["category_id"]]
        np.testing.assert_array_equal(composed, read(root / "ade20k/annotations" / ade20k / image["file_name"]))


@SPLITS
def test_coco_images_are_the_ade20k_images(root, ade20k, coco, image_folder, count):
    for path in (root / "coco" / coco).iterdir():
        assert path.read_bytes() == (root / "ade20k/images" / ade20k / path.name).read_bytes()


def test_coco_box_and_area_are_those_of_the_mask(root):
    api = COCO(root / "coco/annotations/instances_val2017.json")
    for annotation in api.loadAnns(api.getAnnIds()):
        y, x = np.nonzero(api.annToMask(annotation))
        assert annotation["area"] == len(y)
        assert annotation["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        assert annotation["iscrowd"] == 0


def test_coco_ids_are_unique_and_categories_have_gaps(root):
    contents = json.loads((root / "coco/annotations/instances_train2017.json").read_text())
    for kind in ("images", "annotations", "categories"):
        ids = [entry["id"] for entry in contents[kind]]
        assert len(set(ids)) == len(ids) > 0
    assert {c["name"]: c["id"] for c in contents["categories"]} == CATEGORY_IDS
    assert list(CATEGORY_IDS) == list(CLASS_NAMES[1:])
    assert max(CATEGORY_IDS.values()) > len(CATEGORY_IDS)


# ImageFolder layout


@SPLITS
def test_image_folder_has_crops_of_every_shape(root, ade20k, coco, image_folder, count):
    crops = ImageFolder(root / "imagefolder" / image_folder)
    assert crops.classes == sorted(CLASS_NAMES[1:])
    sides = np.array([image.size for image, _ in crops])
    assert sides.min() >= 20
    assert len(crops) > count


def test_class_of_a_crop_fills_most_of_it(root):
    """Every crop is found again in its scene; there the class it is filed under has the most pixels."""
    for path in (root / "imagefolder/val").glob("*/*.png"):
        crop, name = read(path), path.stem.rsplit("_", 1)[0] + ".png"
        scene, mask = (read(root / "ade20k" / kind / "validation" / name) for kind in ("images", "annotations"))
        h, w = crop.shape[:2]
        windows = np.lib.stride_tricks.sliding_window_view(scene[..., 0], (h, w))
        places = np.argwhere((windows[..., 0, :] == crop[0, :, 0]).all(-1))
        [(y, x)] = [(y, x) for y, x in places if np.array_equal(scene[y : y + h, x : x + w], crop)]
        label = CLASS_NAMES.index(path.parent.name)
        counts = np.bincount(mask[y : y + h, x : x + w].ravel(), minlength=len(CLASS_NAMES))
        assert counts[label] >= 0.15 * h * w


# Writing


def test_scenes_do_not_depend_on_how_many_are_made(root, tmp_path):
    fewer = write_shapes(tmp_path / "fewer", 3, 2)
    for kind in ("images", "annotations"):
        for path in (fewer / "ade20k" / kind).glob("*/*.png"):
            assert path.read_bytes() == (root / path.relative_to(fewer)).read_bytes()


def test_seed_changes_the_scenes(root, tmp_path):
    other = write_shapes(tmp_path / "other", 1, 1, seed=1)
    name = "ade20k/annotations/training/scene_00000.png"
    assert (other / name).read_bytes() != (root / name).read_bytes()


def test_image_size_is_height_by_width(tmp_path):
    root = write_shapes(tmp_path / "wide", 1, 1, image_size=(48, 72))
    assert read(root / "ade20k/images/training/scene_00000.png").shape == (48, 72, 3)
    [image] = json.loads((root / "coco/annotations/instances_val2017.json").read_text())["images"]
    assert (image["height"], image["width"]) == (48, 72)


def test_progress_counts_every_scene(tmp_path):
    calls = []
    write_shapes(tmp_path / "shapes", 2, 1, (48, 48), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_equal_parameters_re_use_the_folder_untouched(root):
    before = snapshot(root)
    assert write_shapes(root, NUM_TRAIN, NUM_VAL) == root
    assert snapshot(root) == before


def test_missing_parents_and_an_empty_folder_are_filled(tmp_path):
    root = tmp_path / "a/b/shapes"
    root.mkdir(parents=True)
    write_shapes(root, 1, 1, (48, 48))
    assert (root / "shapes.json").is_file()
    assert [path.name for path in root.parent.iterdir()] == ["shapes"]


@pytest.mark.parametrize(
    "other",
    [{"num_train": NUM_TRAIN + 1}, {"num_val": 1}, {"image_size": (64, 128)}, {"seed": 1}],
    ids=lambda other: next(iter(other)),
)
def test_other_parameters_are_refused_and_nothing_is_touched(root, other):
    before = snapshot(root)
    with pytest.raises(ValueError, match=f"{root} holds shapes made with .* was asked for; .* choose another folder"):
        write_shapes(root, **{"num_train": NUM_TRAIN, "num_val": NUM_VAL, **other})
    assert snapshot(root) == before


def test_foreign_folder_is_refused_and_nothing_is_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"holds no shapes data set \(found thesis.tex\); .* choose another folder"):
        write_shapes(tmp_path, 1, 1)
    assert snapshot(tmp_path) == before


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "shapes"
    path.write_text("")
    with pytest.raises(ValueError, match="shapes is a file, expected a folder"):
        write_shapes(path, 1, 1)


def test_unreadable_parameters_are_refused(tmp_path):
    (tmp_path / "shapes.json").write_text("{")
    with pytest.raises(ValueError, match=r"shapes\.json cannot be read"):
        write_shapes(tmp_path, 1, 1)


def test_interrupted_write_leaves_nothing_under_the_name(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "shapes", 2, 1, (48, 48), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_train": 0}, "num_train must be at least 1 scene, got 0"),
        ({"num_val": -1}, "num_val must be at least 1 scene, got -1"),
        ({"image_size": (16, 128)}, r"image_size must be \(H, W\), each at least 48 pixels, got \[16, 128\]"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        write_shapes(tmp_path / "shapes", **wrong)
    assert not (tmp_path / "shapes").exists()
