from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from flatten_dense.data.classification import ImageFolderDataModule, ShardDataModule
from flatten_dense.data.classification.shard_files import ShardIndex, read_shard, write_shard
from flatten_dense.data.classification.transforms import Augmentation
from flatten_dense.data.images import DataError
from flatten_dense.structures import ClassLabels, InputFormat

pytest.importorskip("webdataset")

SMALL = {"augmentation": Augmentation(size=(16, 16)), "input_format": InputFormat((16, 16), resize="squash")}


@pytest.fixture
def shards(image_folder, tmp_path) -> Callable[..., Path]:
    """Writes 40 photos in 4 shards for training and 10 in 2 for validation, and their image folder beside them."""

    def write(classes=("cat", "dog")) -> Path:
        sizes = {"train": 10, "val": 5}
        for split, size in sizes.items():
            root = image_folder(classes, num=2 * size, splits=(split,)) / split
            paths = sorted(root.rglob("*.png"), key=lambda path: path.name)  # so that each shard has both classes
            photos = [(path, classes.index(path.parent.name), path.relative_to(root).as_posix()) for path in paths]
            (tmp_path / "shards" / split).mkdir(parents=True)
            written = [
                write_shard(tmp_path / f"shards/{split}/{first:03}.tar", photos[first : first + size], first)
                for first in range(0, len(photos), size)
            ]
            ShardIndex(classes, tuple(written)).write(tmp_path / "shards" / split)
        return tmp_path / "shards"

    return write


def module(root, rank=0, processes=1, **options) -> ShardDataModule:
    data = ShardDataModule(str(root), **{"batch_size": 4, "num_workers": 0, **SMALL, **options})
    data.trainer = SimpleNamespace(world_size=processes, global_rank=rank)
    data.setup("fit")
    return data


def epoch_of(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def names(batches):
    return [name for batch in batches for name in batch["path"]]


def test_photos_are_those_of_the_image_folder(shards, tmp_path):
    ours = module(shards())
    theirs = ImageFolderDataModule(tmp_path / "photos", num_workers=0, **SMALL)
    theirs.setup("fit")
    assert ours.labels == theirs.labels
    expected = {
        (sample["label"], "/".join(Path(sample["path"]).parts[-2:])): sample["image"]
        for sample in theirs.datasets["val"]
    }
    batches = list(ours.val_dataloader())
    assert sum(len(batch["path"]) for batch in batches) == len(expected) == 20
    for batch in batches:
        for image, label, path in zip(batch["image"], batch["label"], batch["path"], strict=True):
            assert torch.equal(image, expected[int(label), path])


def test_processes_and_workers_share_the_set_without_repeats(shards):
    root = shards()
    parts = [names(epoch_of(module(root, rank, 2, num_workers=2, batch_size=5))) for rank in range(2)]
    whole = {f"{name}/photo_{index}.png" for name in ("cat", "dog") for index in range(20)}
    assert [len(part) for part in parts] == [20, 20]
    assert set(parts[0] + parts[1]) == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_epoch_goes_on_as_it_would_have(shards, num_workers):
    root = shards()
    whole = epoch_of(module(root, num_workers=2), epoch=1)
    resumed = module(root, num_workers=num_workers)
    resumed.load_state_dict({"epoch": 1, "batch": 3, "readers": 2})
    rest = list(resumed.train_dataloader())
    assert len(rest) == len(whole) - 3 == 7
    for ours, theirs in zip(rest, whole[3:], strict=True):
        assert ours["path"] == theirs["path"]
        assert torch.equal(ours["image"], theirs["image"])


def test_each_shard_is_read_once_in_an_epoch(shards, monkeypatch):
    data = module(shards(), mixed_shards=2)
    read = []
    reader = "flatten_dense.data.classification.shards.read_shard"
    monkeypatch.setattr(reader, lambda *args: read.append(args[1].name) or read_shard(*args))
    epoch_of(data)
    assert len(read) == len(set(read)) == 4


def test_few_shards_stay_in_memory(shards):
    data = module(shards(), mixed_shards=1)
    epoch_of(data)
    assert len(data.datasets["train"]._shards) == 2


def test_classes_go_by_their_names(shards):
    data = module(shards(), labels=ClassLabels(("dog", "cow", "cat")))
    labels = {sample["label"] for sample in data.datasets["val"]}
    assert labels == {0, 2}


def test_classes_that_the_model_does_not_know_are_refused(shards):
    with pytest.raises(DataError, match=r"train: holds 1 classes that are not among the 2 of the model .*: dog"):
        module(shards(), labels=ClassLabels(("cat", "cow")))


def test_a_damaged_shard_is_named_by_a_worker_too(shards):
    root = shards()
    for path in (root / "train").glob("*.tar"):
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"^\S*\.tar: has 5000 bytes, expected \d+; copy it anew"):
        epoch_of(module(root, num_workers=1))


def test_mixing_no_shard_is_refused(shards):
    with pytest.raises(ValueError, match=r"--data\.mixed_shards must be at least 1, got 0"):
        module(shards(), mixed_shards=0)


def test_training_photos_can_be_read_as_validation_reads_its_own(shards, tmp_path):
    data = module(shards(), eval_batch_size=7)
    theirs = ImageFolderDataModule(tmp_path / "photos", num_workers=0, **SMALL)
    ours = {path: image for batch in data.evaluation_loader("train") for path, image in images_of(batch)}
    expected = [pair for batch in theirs.evaluation_loader("train") for pair in images_of(batch)]
    assert len(ours) == len(expected) == 40
    for path, image in expected:
        (own,) = (image for name, image in ours.items() if path.endswith(name.rpartition(":")[2]))
        assert own.equal(image)


def images_of(batch):
    return zip(batch["path"], batch["image"], strict=True)
