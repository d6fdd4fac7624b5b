import pytest
from jsonargparse import ArgumentParser

from flatten_dense.commands.null_options import with_nulls
from flatten_dense.data.classification import ImageFolderDataModule

RECIPE = """{"data": {"class_path": "ImageFolderDataModule", "init_args":
    {"root": "x", "augmentation": {"erase": 0.7}, "input_format": {"scale": [64, 64]}}}}"""


@pytest.mark.parametrize("words", [["--data.input_format.crop", "null"], ["--data.input_format.crop=null"]])
def test_null_in_a_group_is_said_as_an_object(words):
    assert with_nulls(["-c", "x", *words, "--k", "1"]) == [
        *["-c", "x", "--data.input_format", '{"crop": null}', "--k", "1"]
    ]


@pytest.mark.parametrize(
    "words", [["--model.mixing", "null"], ["--trainer.a.b", "null"], ["--data.a.b", "1"], ["null"]]
)
def test_all_else_stays_as_it_is(words):
    assert with_nulls(words) == words


def test_it_reaches_the_class_and_leaves_the_other_values(capsys):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("-c", action="config")
    parser.add_subclass_arguments(ImageFolderDataModule, "data")
    options = ["--data.input_format.crop", "null", "--data.augmentation.auto_augment=null"]
    data = parser.instantiate(parser.parse_args(with_nulls(["-c", RECIPE, *options]))).data
    assert (data.input_format.crop, data.input_format.scale) == (None, (64, 64))
    assert (data.augmentation.auto_augment, data.augmentation.erase) == (None, 0.7)
