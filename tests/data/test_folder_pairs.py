import pickle
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

from flatten_dense.data.folder_pairs import FolderPairsDataModule
from flatten_dense.data.images import DataError, mask_image, read_colours
from flatten_dense.data.segmentation import SegmentationDataModule

VOC = {
    "images": "JPEGImages",
    "masks": "SegmentationClass",
    "split_lists": "ImageSets/Segmentation/{split}.txt",
}
CITYSCAPES = {
    "images": "leftImg8bit/{split}",
    "masks": "gtFine/{split}",
    "image_suffix": "_leftImg8bit.png",
    "mask_suffix": "_gtFine_labelIds.png",
}
CAMVID = {"images": "{split}", "masks": "{split}_labels", "mask_suffix": "_L"}


def make(root, layout, **options) -> FolderPairsDataModule:
    small = {"train_scale": None, "crop_size": (8, 8), "eval_scale": None, "batch_size": 2, "num_workers": 0}
    return FolderPairsDataModule(root, **layout, **{**small, **options})


def val_mask(data: FolderPairsDataModule) -> list[int]:
    """The first four pixels of the first mask; all rows are equal."""
    data.setup("validate")
    mask = data.datasets["val"][0]["mask"]
    assert (mask == mask[0]).all()
    return mask[0, :4].tolist()


def names(data: FolderPairsDataModule, split: str) -> list[str]:
    data.setup("fit")
    return [Path(data.datasets[split][index]["path"]).name for index in range(len(data.datasets[split]))]


def test_voc_takes_the_lists_and_ignores_void(voc):
    data = make(voc, VOC)
    assert names(data, "train") == ["2007_000032.jpg", "2007_000063.jpg"]
    assert names(data, "val") == ["2007_000039.jpg"]
    assert val_mask(data) == [0, 255, 1, 20]
    assert data.labels.class_names[20] == "object 20"


def test_voc_list_names_a_photo_without_a_mask(voc):
    (voc / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n2007_000999\n2007_0000\n")
    with pytest.raises(DataError, match=r"1 image\(s\) without a mask: 2007_000999\.jpg\n.*list.* 2007_0000\n"):
        make(voc, VOC).setup("fit")


def test_voc_without_a_test_list_says_how_to_choose_another(voc):
    with pytest.raises(DataError, match=r"test\.txt: no such list.*--data.test_split val"):
        make(voc, VOC).setup("test")


def test_cityscapes_ids_go_through_the_map(cityscapes):
    data = make(cityscapes, CITYSCAPES, label_map=cityscapes / "map.csv")
    assert names(data, "train") == [f"{city}_000000_000019_leftImg8bit.png" for city in ("aachen", "bochum")]
    assert val_mask(data) == [255, 0, 1, 2]
    assert data.labels.class_names == ("road", "sidewalk", "bicycle")
    assert data.labels.to_disk(torch.tensor([0, 1, 2])).tolist() == [7, 8, 33]


def test_cityscapes_ids_that_the_map_leaves_out_are_named(cityscapes):
    (cityscapes / "map.csv").write_text("7,road\n8,sidewalk\n")
    data = make(cityscapes, CITYSCAPES, label_map=cityscapes / "map.csv")
    with pytest.raises(
        DataError, match=r"labelIds\.png: the mask holds 0, 33, .*map \(7, 8\), or 255.*line '\*,ignore'"
    ):
        val_mask(data)


@pytest.mark.parametrize(
    ("label_map", "classes", "mask"),
    [
        ("label_colors.txt", ("Car", "SUVPickupTruck", "Void"), [0, 1, 2, 0]),
        ("merged.txt", ("Car",), [0, 0, 255, 0]),
    ],
)
def test_camvid_colours_are_the_labels(camvid, label_map, classes, mask):
    data = make(camvid, CAMVID, label_map=camvid / label_map)
    assert val_mask(data) == mask
    assert data.labels.class_names == classes


def test_camvid_predictions_are_in_its_colours(camvid, tmp_path):
    labels = make(camvid, CAMVID, label_map=camvid / "label_colors.txt").labels
    mask_image(torch.tensor([[2, 0, 1]]), labels).save(tmp_path / "out.png")
    assert read_colours(tmp_path / "out.png").tolist() == [[0, 0x400080, 0x4080C0]]


def test_camvid_colour_that_the_map_leaves_out_is_named_with_its_place(camvid):
    (camvid / "part.txt").write_text("64 0 128 Car\n")
    data = make(camvid, CAMVID, label_map=camvid / "part.txt")
    reason = r"_1_L\.png: the mask holds the colour \(64, 128, 192\), first at column 1 of row 0, and 1 more"
    with pytest.raises(DataError, match=reason):
        val_mask(data)


def test_colour_masks_without_a_map_say_what_to_do(camvid):
    data = make(camvid, CAMVID, classes=camvid / "label_colors.txt")
    with pytest.raises(DataError, match=r"3 channels.*--data.label_map FILE"):
        val_mask(data)


def test_labels_of_a_trained_model_hold_the_map(cityscapes):
    labels = make(cityscapes, CITYSCAPES, label_map=cityscapes / "map.csv").labels
    assert val_mask(make(cityscapes, CITYSCAPES, labels=labels)) == [255, 0, 1, 2]


def test_a_trained_model_takes_a_map_for_other_masks(cityscapes):
    labels = make(cityscapes, CITYSCAPES, label_map=cityscapes / "map.csv").labels
    (cityscapes / "other.csv").write_text("33,road\n8,sidewalk\n7,bicycle\n0,ignore\n")
    assert val_mask(make(cityscapes, CITYSCAPES, labels=labels, label_map=cityscapes / "other.csv")) == [255, 2, 1, 0]


def test_missing_folder_is_named_with_the_layout(cityscapes):
    layout = {**CITYSCAPES, "masks": "gtCoarse/{split}"}
    expected = r"gtCoarse/train: no such folder\. .*ROOT/leftImg8bit/\{train,val,test\}/NAME_leftImg8bit\.png and "
    with pytest.raises(DataError, match=expected + r"ROOT/gtCoarse/\{train,val,test\}/NAME_gtFine_labelIds\.png"):
        make(cityscapes, layout, label_map=cityscapes / "map.csv").setup("fit")


def test_splits_have_any_names(voc):
    data = make(voc, VOC, train_split="val", val_split="train", test_split="val")
    data.setup("test")
    assert names(data, "train") == ["2007_000039.jpg"]
    assert len(data.datasets["val"]) == 2
    assert len(data.datasets["test"]) == 1


def test_nothing_is_read_before_it_is_needed(tmp_path):
    FolderPairsDataModule(tmp_path / "missing", label_map=tmp_path / "missing.csv")


def test_data_sets_reach_spawned_workers(camvid):
    data = make(camvid, CAMVID, label_map=camvid / "merged.txt")
    data.setup("validate")
    data.datasets["val"][0]
    packed = pickle.dumps(data.datasets["val"])
    assert len(packed) < 100_000, "the table of colours is not carried along"
    assert pickle.loads(packed)[0]["mask"][0, :3].tolist() == [0, 0, 255]


def test_options_of_the_base_class_are_known_to_the_command_line(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(SegmentationDataModule, "data")
    options = ["--data=FolderPairsDataModule", "--data.root=.", "--data.images={split}", "--data.flip=0.25"]
    data = parser.instantiate(parser.parse_args(options)).data
    assert (data.layout.images, data.flip, data.batch_size) == ("{split}", 0.25, 16)
    with pytest.raises(Exception, match="flop"):
        parser.parse_args([*options, "--data.flop=1"])
