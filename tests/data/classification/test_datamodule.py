import pytest

from flatten_dense.data.classification import ImageFolderDataModule
from flatten_dense.structures import InputFormat


def test_the_default_evaluation_is_the_authors(image_folder):
    input_format = ImageFolderDataModule(image_folder()).input_format
    assert input_format == InputFormat((256, 256), resize="squash", crop=(224, 224), interpolation="bicubic")


def test_options_are_checked_before_the_first_photo(image_folder):
    data = ImageFolderDataModule(image_folder(), input_format=InputFormat((0, 0)), num_workers=0)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        data.setup("validate")
