import pytest

from flatten_dense.data.classification import ImageFolderDataModule
from flatten_dense.structures import InputFormat


def test_the_default_evaluation_is_the_authors(image_folder):
    input_format = ImageFolderDataModule(image_folder()).input_format
    assert input_format == InputFormat((256, 256), resize="squash", crop=(224, 224), interpolation="bicubic")


@pytest.mark.parametrize("given", [InputFormat(), InputFormat((64, 64), resize="short_side")])
def test_evaluation_images_of_several_sizes_are_refused(image_folder, given):
    with pytest.raises(ValueError, match=r"must be of one size: set --data.input_format.crop"):
        ImageFolderDataModule(image_folder(), input_format=given).setup("fit")


def test_options_are_checked_before_the_first_photo(image_folder):
    data = ImageFolderDataModule(image_folder(), input_format=InputFormat((0, 0), resize="squash"), num_workers=0)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        data.setup("validate")


def test_training_photos_can_be_read_as_validation_reads_its_own(image_folder):
    root = image_folder()
    data = ImageFolderDataModule(root, eval_batch_size=4, num_workers=0)
    as_val = ImageFolderDataModule(root, val_folder="train", eval_batch_size=4, num_workers=0)
    as_val.setup("validate")
    for own, expected in zip(data.evaluation_loader("train"), as_val.val_dataloader(), strict=True):
        assert own["path"] == expected["path"]
        assert own["image"].equal(expected["image"])
