import inspect
import json
import os

import pytest
import torch

from flatten_dense.data.detection import CocoDataModule
from flatten_dense.data.detection.transforms import DetectionTrainTransform
from flatten_dense.data.images import DataError
from flatten_dense.structures import Normalization


def make(root, **options):
    return CocoDataModule(root, **{"num_workers": 0, "train_scale": (64, 48), "eval_scale": (64, 48), **options})


def batch(data, split="fit"):
    data.setup(split)
    loader = {"fit": data.train_dataloader, "validate": data.val_dataloader, "test": data.test_dataloader}[split]
    return next(iter(loader()))


def test_classes_are_the_categories_by_rising_id(coco):
    labels = make(coco).labels
    assert labels.class_names == ("apple", "zebra")
    assert labels.category_ids == (2, 7)


def test_a_training_batch_is_made_of_lists(coco):
    samples = batch(make(coco, batch_size=2))
    assert set(samples) == {"image", "target", "image_id", "path"}
    assert sorted(samples["image_id"]) == [10, 20]
    assert all(image.shape[0] == 3 for image in samples["image"])


def test_targets_have_masks_if_the_training_annotations_have(coco):
    assert "masks" in batch(make(coco))["target"][0]
    assert "masks" not in batch(make(coco, with_masks=False))["target"][0]


def test_an_evaluation_batch_has_every_image_at_its_original_size(coco):
    samples = batch(make(coco, eval_batch_size=2), "validate")
    assert samples["image_id"] == [10, 20]
    assert samples["size"] == [(48, 64), (60, 40)]


def test_the_test_split_is_validation_unless_it_is_named(coco):
    assert batch(make(coco), "test")["image_id"] == [10]
    named = make(coco, test_images="train2017", test_annotations="annotations/instances_train2017.json")
    named.setup("test")
    assert len(named.datasets["test"]) == 4


def test_a_trained_models_classes_keep_their_order(coco):
    labels = make(coco).labels
    turned = type(labels)(labels.class_names[::-1], labels.palette, labels.category_ids[::-1])
    data = make(coco, labels=turned)
    assert batch(data, "validate")["target"][0]["labels"].tolist() == [0]  # zebra
    assert data.datasets["val"].labels.category_ids == (7, 2)


def test_evaluating_a_checkpoint_needs_no_training_data(coco):
    labels = make(coco).labels
    (coco / "annotations/instances_train2017.json").unlink()
    assert batch(make(coco, labels=labels), "validate")["image_id"] == [10]


def test_masks_wanted_from_boxes_alone_are_refused(coco):
    path = coco / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    content["annotations"] = [annotation for annotation in content["annotations"] if not annotation.get("iscrowd")]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"--data\.with_masks true: .*holds boxes alone"):
        make(coco, with_masks=True).setup("fit")


def test_photos_that_are_not_there_are_named(coco):
    os.remove(coco / "val2017/2.png")
    with pytest.raises(DataError, match=r"1 of the 2 photos it names are not there: .*2\.png"):
        make(coco).setup("validate")


def test_options_out_of_range_are_refused(coco):
    with pytest.raises(ValueError, match="flip must be a probability"):
        make(coco, flip=2.0).setup("fit")


def test_images_are_normalised_alike_in_training_and_evaluation(coco):
    data = make(coco, flip=0.0, batch_size=1)
    data.setup("fit")
    train, val = data.datasets["train"][0]["image"], data.datasets["val"][0]["image"]
    torch.testing.assert_close(train, val)


def test_every_option_of_the_training_transform_reaches_it(coco, monkeypatch):
    given = {
        "short_sides": [40, 48],
        "crop": 0.25,
        "crop_short_sides": (30, 31),
        "crop_range": (20, 30),
        "scale_jitter": (0.5, 2.0),
        "flip": 0.125,
        "photometric": True,
        "normalization": Normalization((0.1, 0.2, 0.3)),
    }
    received = {}
    monkeypatch.setattr(
        "flatten_dense.data.detection.datamodule.DetectionTrainTransform", lambda **options: received.update(options)
    )
    make(coco, **given).setup("fit")
    assert received == {"scale": (64, 48), **given}
    assert set(received) == set(inspect.signature(DetectionTrainTransform).parameters)


def test_objects_are_pasted_when_asked_for(coco):
    data = make(coco, copy_paste=1.0, keep_empty=True, with_masks=False)
    data.setup("fit")
    torch.manual_seed(0)
    numbers = [len(data.datasets["train"][2]["target"]["boxes"]) for _ in range(20)]  # the empty photo
    assert max(numbers) > 0


def test_two_processes_share_the_training_photos(coco, make_trainer):
    seen = []
    for rank in range(2):
        data = make(coco, batch_size=1)
        data.setup("fit")
        data.trainer = make_trainer(processes=2, rank=rank)
        seen += [samples["image_id"] for samples in data.train_dataloader()]
    assert sorted(seen) == [[10], [20]]


def test_the_heaviest_batch_is_at_the_largest_of_the_sizes(coco):
    data = make(coco, train_scale=(100, 60), short_sides=[20, 40, 60], crop=1.0, batch_size=2)
    data.setup("fit")
    heaviest = data.heaviest_batch("train")
    sizes = dict(zip(heaviest["image_id"], [tuple(image.shape[-2:]) for image in heaviest["image"]], strict=True))
    assert sizes == {10: (60, 80), 20: (90, 60)}


def test_the_heaviest_batch_is_full_of_pasted_objects(coco):
    data = make(coco, copy_paste=1e-9, batch_size=1)
    data.setup("fit")
    (index,) = data.heaviest("train")
    own = sum(not item.iscrowd for item in data.datasets["train"]._photos[index].objects)
    torch.manual_seed(0)
    counts = [len(data.heaviest_batch("train")["target"][0]["labels"]) for _ in range(10)]
    assert max(counts) > own


def test_the_heaviest_evaluation_batch_has_the_largest_photo(coco):
    data = make(coco, eval_scale=None)
    data.setup("validate")
    assert data.heaviest_batch("val")["image_id"] == [10]
