import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from flatten_dense.data.detection.coco_json import read_coco
from flatten_dense.data.detection.dataset import DetectionDataset
from flatten_dense.data.detection.transforms import DetectionTrainTransform
from flatten_dense.data.images import DataError
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.structures import DetectionLabels, InputFormat

SHARED = Path(__file__).parents[4] / "shared/data"
AS_IT_IS = DetectionTrainTransform(scale=(64, 48), flip=0.0)


def read(root, split="train2017"):
    return read_coco(root / f"annotations/instances_{split}.json", root / split)


def dataset(root, transform=AS_IT_IS, split="train2017", **options):
    annotations = read(root, split)
    return DetectionDataset(annotations, annotations.labels, transform, **options)


def test_a_training_item(coco):
    item = dataset(coco, with_masks=True)[0]
    assert set(item) == {"image", "target", "image_id", "path"}
    assert item["image"].shape == (3, 48, 64)
    assert item["image"].dtype == torch.float32
    assert item["image_id"] == 10
    assert item["path"] == str(coco / "train2017/1.png")
    target = item["target"]
    assert target["boxes"].tolist() == [[8, 4, 28, 20], [40, 20, 60, 44]]
    assert target["labels"].tolist() == [1, 0]
    assert target["masks"].flatten(1).sum(1).tolist() == [20 * 16, 20 * 24]


def test_objects_move_with_the_photo(coco):
    item = dataset(coco, DetectionTrainTransform(scale=(128, 96), flip=1.0), with_masks=True)[0]
    assert item["image"].shape == (3, 96, 128)
    assert item["target"]["boxes"].tolist() == [[72, 8, 112, 40], [8, 40, 48, 88]]
    assert item["target"]["masks"][0, 8:40, 72:112].all()


def test_masks_only_where_they_are_wanted(coco):
    assert "masks" not in dataset(coco)[0]["target"]


def test_an_evaluation_item(coco):
    item = dataset(coco, EvalTransform(InputFormat((128, 96))), with_masks=True)[0]
    assert item["image"].shape == (3, 96, 128)
    assert item["size"] == (48, 64)
    assert item["image_id"] == 10
    target = item["target"]
    assert target["boxes"].tolist() == [[8, 4, 28, 20], [40, 20, 60, 44], [0, 0, 10, 48]]
    assert target["iscrowd"].tolist() == [False, False, True]
    assert [int(coco_mask.area(rle)) for rle in target["masks"]] == [320, 480, 480]


def test_training_leaves_photos_out_and_evaluation_none(coco):
    evaluation = dataset(coco, EvalTransform(InputFormat((64, 48))))
    assert [item["image_id"] for item in evaluation] == [10, 20, 30, 40]
    training = dataset(coco)
    assert [training[index]["image_id"] for index in range(len(training))] == [10, 20]
    assert training.sizes == [(48, 64), (60, 40)]


def test_empty_photos_are_kept_when_asked_for(coco):
    kept = dataset(coco, keep_empty=True, with_masks=True)
    assert len(kept) == 3
    assert kept[2]["target"]["masks"].shape == (0, 48, 48)


def test_nothing_to_train_on(coco):
    annotations = read(coco)
    annotations.annotations[:] = [entry for entry in annotations.annotations if entry["iscrowd"]]
    with pytest.raises(DataError, match=r"none of its 4 images can be trained on.* of at least a pixel, crowds aside"):
        DetectionDataset(annotations, annotations.labels, AS_IT_IS)


def test_classes_are_the_models_whatever_the_file_numbers_them(coco):
    labels = DetectionLabels(("plum", "zebra", "apple"), ((1, 1, 1),) * 3, (1, 2, 3))
    items = DetectionDataset(read(coco), labels, AS_IT_IS)
    assert items[0]["target"]["labels"].tolist() == [1, 2]
    assert items.labels.category_ids == (1, 7, 2)


def test_pasted_objects_come_from_other_photos(coco):
    torch.manual_seed(0)
    pasted = dataset(coco, copy_paste=1.0)
    drawn = [pasted[1] for _ in range(30)]
    assert {tuple(item["image"].shape) for item in drawn} == {tuple(dataset(coco)[1]["image"].shape)}
    assert max(len(item["target"]["boxes"]) for item in drawn) > 1
    assert "masks" not in drawn[0]["target"]


def test_copy_paste_happens_as_often_as_asked_for(coco):
    torch.manual_seed(0)
    never = dataset(coco, copy_paste=1e-9)
    assert {len(never[1]["target"]["boxes"]) for _ in range(30)} == {1}


def test_probability_of_copy_paste_out_of_range(coco):
    with pytest.raises(ValueError, match="copy_paste must be a probability between 0 and 1, got 2"):
        dataset(coco, copy_paste=2.0)


def test_a_copy_for_a_worker_gives_the_same_items_without_the_annotations(coco):
    original = dataset(coco)
    copy = pickle.loads(pickle.dumps(original))
    assert copy.annotations is None
    assert original.annotations is not None
    torch.testing.assert_close(copy[0]["image"], original[0]["image"])
    torch.testing.assert_close(copy[0]["target"]["boxes"], original[0]["target"]["boxes"])


def test_a_photo_of_another_size(coco):
    Image.new("RGB", (60, 48)).save(coco / "train2017/1.png")
    with pytest.raises(DataError, match=r"1.png is 60x48 pixels, but its annotations say 64x48 \(image id 10\)"):
        dataset(coco)[0]


def test_a_photo_turned_by_its_exif_tag(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(coco / "train2017/1.png", exif=exif)
    with pytest.raises(DataError, match=r"is 48x64 pixels, but its annotations say 64x48.*turned upright by its EXIF"):
        dataset(coco)[0]


def test_swapped_sides_without_a_tag_are_not_blamed_on_one(coco):
    Image.new("RGB", (48, 64)).save(coco / "train2017/1.png")
    with pytest.raises(DataError, match="correct width and height") as error:
        dataset(coco)[0]
    assert "EXIF" not in str(error.value)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_masks_of_real_photos_are_those_of_pycocotools():
    root = SHARED / "coco_mini"
    annotations = read_coco(root / "annotations/instances_train2017.json", root / "train2017")
    items = DetectionDataset(annotations, annotations.labels, DetectionTrainTransform((640, 640), flip=0.0), True)
    theirs = COCO()
    theirs.dataset = annotations.to_coco()
    theirs.createIndex()
    seen = 0
    for index in range(6):
        item = items[index]
        expected = theirs.loadAnns(theirs.getAnnIds(item["image_id"], iscrowd=False))
        if item["image"].shape[1:] == theirs.annToMask(expected[0]).shape:  # not resized
            different = item["target"]["masks"].numpy() != [theirs.annToMask(a) for a in expected]
            assert different.mean() < 1e-5  # shifted polygons may round the other way
            seen += 1
    assert seen > 2
