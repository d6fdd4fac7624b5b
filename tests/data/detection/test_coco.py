import pytest

from flatten_dense.data.detection import CocoDataModule
from flatten_dense.data.images import DataError


def test_files_may_have_other_names(coco):
    (coco / "train2017").rename(coco / "photos")
    (coco / "annotations/instances_train2017.json").rename(coco / "train.json")
    data = CocoDataModule(coco, train_images="photos", train_annotations="train.json")
    assert len(data.read_split("train").images) == 4


def test_a_json_file_that_is_not_there_names_its_option_and_those_there_are(coco):
    with pytest.raises(DataError, match=r"--data\.val_annotations.*There are annotations/instances_train2017\.json"):
        CocoDataModule(coco, val_annotations="val.json").setup("validate")


def test_a_photo_folder_that_is_not_there_names_its_option(coco):
    with pytest.raises(DataError, match=r"photos: not there; --data\.train_images"):
        CocoDataModule(coco, train_images="photos").setup("fit")


def test_a_root_that_is_no_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="gone is no folder"):
        CocoDataModule(tmp_path / "gone").setup("fit")


def test_a_split_is_read_once(coco):
    data = CocoDataModule(coco)
    assert data.read_split("train") is data.read_split("train")
