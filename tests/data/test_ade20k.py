import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.data.ade20k import ADE20KDataModule
from flatten_dense.data.images import DataError
from flatten_dense.structures import InputFormat, LabelSpace, Normalization, default_palette

CAMVID = Path(__file__).parents[2] / "../shared/data/camvid_ade"


def make(root, **options) -> ADE20KDataModule:
    small = {"train_scale": None, "crop_size": (8, 8), "eval_scale": (8, 6), "batch_size": 2, "num_workers": 0}
    return ADE20KDataModule(root, **{**small, **options})


def first_sample(root, split="val", **options):
    data = make(root, **options)
    data.setup({"train": "fit", "val": "validate"}[split])
    return data.datasets[split][0]


def write_mask(root, values, name="photo_0.png", split="validation"):
    Image.fromarray(np.asarray(values)).save(root / "annotations" / split / name)


def test_training_batch_is_stacked(ade_root):
    data = make(ade_root())
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert (batch["image"].shape, batch["image"].dtype) == ((2, 3, 8, 8), torch.float32)
    assert (batch["mask"].shape, batch["mask"].dtype) == ((2, 8, 8), torch.int64)
    assert all(Path(path).is_file() for path in batch["path"])


def test_evaluation_keeps_masks_at_the_original_size(ade_root):
    root = ade_root()
    values = np.random.default_rng(1).integers(0, 3, (12, 16), dtype=np.uint8)
    write_mask(root, values)
    data = make(root)
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    assert batch["image"][0].shape == (3, 6, 8)
    assert batch["mask"][0].dtype == torch.int64
    np.testing.assert_array_equal(batch["mask"][0], values)
    assert batch["path"] == [str(root / "images/validation/photo_0.jpg")]


def test_a_batch_comes_from_worker_processes(ade_root):
    data = make(ade_root(), num_workers=1)
    data.setup("validate")
    assert len(list(data.val_dataloader())) == 4


def test_zero_label_is_reduced(ade_root):
    root = ade_root()
    write_mask(root, np.repeat(np.array([[0, 1, 2, 3, 255, 255, 0, 1]], dtype=np.uint8), 2, axis=1).repeat(12, axis=0))
    mask = first_sample(root, reduce_zero_label=True)["mask"]
    assert mask[0, ::2].tolist() == [255, 0, 1, 2, 255, 255, 255, 0]


def test_ignore_index_passes_and_pads(ade_root):
    root = ade_root(num=1)
    write_mask(root, np.full((12, 16), 200, dtype=np.uint8), split="training")
    mask = first_sample(root, "train", ignore_index=200, crop_size=(20, 20), ratio_range=(1, 1))["mask"]
    assert mask.unique().tolist() == [200]


@pytest.mark.parametrize("options", [{}, {"reduce_zero_label": True}, {"ignore_index": 300}])
def test_masks_of_8_and_of_16_bits_mean_the_same(ade_root, options):
    root = ade_root()
    values = np.tile(np.array([0, 1, 2, 2], dtype=np.uint8), (12, 4))
    masks = []
    for dtype in (np.uint8, np.uint16):
        write_mask(root, values.astype(dtype))
        masks.append(first_sample(root, **options)["mask"])
    assert masks[0].dtype == masks[1].dtype == torch.int64
    assert torch.equal(*masks)


@pytest.mark.parametrize("normalization", [None, Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
def test_the_input_format_says_how_evaluation_images_were_made(ade_root, normalization):
    data = make(ade_root(), normalization=normalization, eval_scale=None)
    assert data.input_format == InputFormat(None, normalization or Normalization())
    data.setup("validate")
    sample = data.datasets["val"][0]
    photo = torch.from_numpy(np.array(Image.open(sample["path"]))).permute(2, 0, 1)
    torch.testing.assert_close(data.input_format.normalization.undo(sample["image"]), photo)


def test_values_outside_the_classes_are_refused(ade_root):
    root = ade_root()
    write_mask(root, np.full((12, 16), 7, dtype=np.uint8))
    with pytest.raises(DataError) as caught:
        first_sample(root)
    mask = root / "annotations/validation/photo_0.png"
    assert str(caught.value).startswith(f"{mask}: the mask holds 7, outside the 3 classes; expected 0..2, or 255")


def test_masks_that_count_from_one_get_the_hint(ade_root):
    root = ade_root()
    write_mask(root, np.tile(np.array([0, 1, 2, 3], dtype=np.uint8), (12, 4)))
    with pytest.raises(DataError, match=r"holds 3, .*--data.reduce_zero_label true"):
        first_sample(root)


def test_values_outside_reduced_classes_name_the_values_on_disk(ade_root):
    root = ade_root()
    write_mask(root, np.tile(np.array([0, 1, 4, 9], dtype=np.uint8), (12, 4)))
    with pytest.raises(DataError, match=r"holds 4, 9, .*expected 0 \(unlabelled\), 1\.\.3"):
        first_sample(root, reduce_zero_label=True)


def test_mask_of_another_size_is_refused(ade_root):
    root = ade_root()
    write_mask(root, np.zeros((12, 15), dtype=np.uint8))
    with pytest.raises(DataError, match=r"photo_0\.jpg is 16x12 pixels, but its mask .*photo_0\.png is 15x12"):
        first_sample(root)


def test_rotated_photo_needs_an_upright_mask(ade_root):
    root = ade_root()
    path = root / "images/validation/photo_0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    with pytest.raises(DataError, match=r"is 12x16 pixels, .* is 16x12; .*EXIF"):
        first_sample(root)
    write_mask(root, np.zeros((16, 12), dtype=np.uint8))
    assert first_sample(root)["mask"].shape == (16, 12)


def test_everything_that_does_not_pair_is_in_one_message(ade_root):
    root = ade_root(num=8)
    for index in range(7):
        (root / f"annotations/training/photo_{index}.png").unlink()
    (root / "annotations/training/extra.png").touch()
    (root / "images/training/photo_7.png").touch()
    with pytest.raises(DataError) as caught:
        make(root).setup("fit")
    message = str(caught.value)
    lone = "photo_0.jpg, photo_1.jpg, photo_2.jpg, photo_3.jpg, photo_4.jpg, ..."
    assert f"7 image(s) without a mask: {lone}" in message
    assert "1 mask(s) without an image: extra.png" in message
    assert "2 image(s) of a stem that another has: photo_7.jpg, photo_7.png" in message
    assert str(root / "annotations/training") in message
    assert "Expected layout: ROOT/images/" in message


@pytest.mark.parametrize("folder", ["images/training", "annotations/training"])
def test_missing_folder_is_named_with_the_layout(ade_root, folder):
    root = ade_root()
    (root / folder).rename(root / "elsewhere")
    with pytest.raises(DataError, match=rf"{root / folder}: no such folder\. Expected layout"):
        make(root).setup("fit")


def test_empty_folder_is_named(ade_root):
    root = ade_root(num=0)
    with pytest.raises(DataError, match=rf"{root / 'images/training'}: the folder holds no image"):
        make(root).setup("fit")


@pytest.mark.parametrize("unlabelled", [False, True])
def test_missing_test_split_says_how_to_choose_another(ade_root, unlabelled):
    root = ade_root()
    if unlabelled:
        (root / "images/validation").rename(root / "images/test")
    with pytest.raises(DataError, match=r"`test` reads the split 'test'.*--data.test_split validation"):
        make(root).setup("test")


def test_test_reads_the_chosen_split(ade_root):
    data = make(ade_root(), test_split="validation")
    data.setup("test")
    assert data.datasets["test"][0]["path"].endswith("images/validation/photo_0.jpg")


def test_given_labels_go_before_the_folder(ade_root):
    labels = LabelSpace(("a", "b", "c"), default_palette(3), reduce_zero_label=True)
    assert make(ade_root(classes=False), labels=labels).labels == labels


@pytest.mark.parametrize(("stated", "expected"), [(None, True), (True, True), (False, False)])
def test_masks_may_hold_the_given_classes_otherwise(ade_root, stated, expected):
    labels = LabelSpace(("cat", "dog", "bird"), default_palette(3), reduce_zero_label=True)
    assert make(ade_root(), labels=labels, reduce_zero_label=stated).labels.reduce_zero_label is expected


def test_an_ignored_value_above_8_bits_pads_training_crops(ade_root):
    data = make(ade_root(), ignore_index=300, crop_size=(64, 64), train_scale=None)
    data.setup("fit")
    assert int(data.datasets["train"][0]["mask"].max()) == 300


def test_given_labels_are_compared_with_the_folder(ade_root):
    with pytest.raises(DataError, match="trained on 2 classes"):
        _ = make(ade_root(), labels=LabelSpace(("a", "b"), default_palette(2))).labels


def test_nothing_is_read_before_it_is_needed(tmp_path):
    data = make(tmp_path / "missing")
    with pytest.raises(DataError, match="no such folder"):
        _ = data.labels


def test_data_sets_reach_spawned_workers(ade_root):
    data = make(ade_root())
    data.setup("fit")
    assert len(pickle.loads(pickle.dumps(data.datasets["train"]))) == 4


def test_reading_writes_nothing(ade_root):
    root = ade_root()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    data = make(root)
    data.setup("fit")
    list(data.train_dataloader())
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_ade20k_as_downloaded_needs_no_option_but_the_zero_label(ade_root):
    root = ade_root(classes=False)
    rows = [f"{index}\t0.1\t5\t5\tname {index}, other name\n" for index in range(1, 151)]
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "".join(rows))
    write_mask(root, np.tile(np.array([0, 1, 150, 7], dtype=np.uint8), (12, 4)))
    mask = first_sample(root, reduce_zero_label=True)["mask"]
    assert mask[0, :4].tolist() == [255, 0, 149, 6]


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the CamVid data beside the checkout")
def test_real_street_scenes_load():
    options = {"train_scale": (320, 240), "crop_size": (180, 240), "eval_scale": (320, 240)}
    data = ADE20KDataModule(CAMVID, reduce_zero_label=True, batch_size=4, num_workers=0, **options)
    data.setup("fit")
    data.setup("test")
    assert [len(data.datasets[split]) for split in ("train", "val", "test")] == [367, 101, 233]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 180, 240)
    evaluated = next(iter(data.test_dataloader()))
    assert (evaluated["image"][0].shape, evaluated["mask"][0].shape) == ((3, 240, 320), (360, 480))
    assert set(evaluated["mask"][0].unique().tolist()) <= {*range(11), 255}


def test_the_heaviest_evaluation_batch_has_the_largest_photos(ade_root):
    root = ade_root(num=3)
    for suffix, folder in (("jpg", "images"), ("png", "annotations")):
        path = root / folder / "validation" / f"photo_1.{suffix}"
        Image.open(path).resize((32, 20)).save(path)
    data = make(root, eval_batch_size=1)
    data.setup("fit")
    assert [Path(path).stem for path in data.heaviest_batch("val")["path"]] == ["photo_1"]
    assert len(data.heaviest_batch("train")["image"]) == len(next(iter(data.train_dataloader()))["image"])
