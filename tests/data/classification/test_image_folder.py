import pytest
import torch

from flatten_dense.data.classification.image_folder import ImageFolderDataModule
from flatten_dense.data.images import DataError
from flatten_dense.structures import ClassLabels


def module(root, **options):
    return ImageFolderDataModule(root, **{"batch_size": 2, "num_workers": 0, **options})


def test_classes_are_the_training_folders_in_order(image_folder):
    root = image_folder(("dog", "cat", "Ant"))
    assert module(root).labels == ClassLabels(("Ant", "cat", "dog"))


def test_items_name_their_class_and_file(image_folder):
    data = module(image_folder())
    data.setup("fit")
    item = data.datasets["val"][4]
    assert item["label"] == 1
    assert item["path"].endswith("val/dog/photo_1.png")
    assert item["image"].shape == (3, 224, 224)


def test_photos_may_lie_deeper_and_other_files_do_not_count(image_folder):
    root = image_folder(num=1)
    (root / "train/cat/more").mkdir()
    (root / "train/cat/photo_0.png").rename(root / "train/cat/more/deep.PNG")
    (root / "train/cat/notes.txt").write_text("")
    (root / "train/cat/.hidden.png").write_text("")
    data = module(root)
    data.setup("fit")
    assert [path.name for path, label in data.datasets["train"].samples if label == 0] == ["deep.PNG"]


def test_evaluation_batches_are_stacked(image_folder):
    data = module(image_folder(), eval_batch_size=4)
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (4, 3, 224, 224)
    assert batch["label"].tolist() == [0, 0, 0, 1]
    assert batch["label"].dtype == torch.int64


def test_a_class_may_be_without_validation_photos(image_folder):
    root = image_folder()
    for path in (root / "val/cat").iterdir():
        path.unlink()
    (root / "val/cat").rmdir()
    data = module(root)
    data.setup("validate")
    assert {label for _, label in data.datasets["val"].samples} == {1}


def test_a_class_that_training_does_not_have_is_refused(image_folder):
    root = image_folder()
    (root / "val/cow").mkdir()
    with pytest.raises(DataError, match=r"val: holds 1 classes that are not among the 2 .*cow"):
        module(root).setup("validate")


def test_a_trained_models_classes_need_no_training_folder(image_folder):
    root = image_folder(splits=("val",))
    data = module(root, labels=ClassLabels(("cat", "cow", "dog")))
    data.setup("test")
    assert {label for _, label in data.datasets["test"].samples} == {0, 2}


def test_a_missing_split_says_what_is_there(image_folder):
    with pytest.raises(DataError, match=r"training: no such folder; .*photos holds train, val.*--data.train_folder"):
        module(image_folder(), train_folder="training").setup("fit")


def test_photos_without_class_folders(tmp_path, image_folder):
    root = image_folder(("cat", "dog"))
    with pytest.raises(DataError, match=r"cat: holds no folder, only 3 files; expected ROOT/train/CLASS"):
        module(root / "train", train_folder="cat").setup("fit")


def test_folders_without_photos(image_folder):
    with pytest.raises(DataError, match="no image in the folders of the classes"):
        module(image_folder(num=0)).setup("fit")


def test_one_class_is_not_enough(image_folder):
    with pytest.raises(DataError, match="at least 2 classes"):
        module(image_folder(("cat",))).setup("fit")
