from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from flatten_dense.commands.null_options import with_nulls
from flatten_dense.commands.trainer import TrainerCLI
from flatten_dense.data.classification import ImageFolderDataModule

MICRO_RECIPE = Path(__file__).parents[1] / "micro_recipe.yaml"
RECIPE = """{"data": {"class_path": "ImageFolderDataModule", "init_args":
    {"root": "x", "augmentation": {"erase": 0.7}, "input_format": {"scale": [64, 64]}}}}"""


@pytest.mark.parametrize("words", [["--data.input_format.crop", "null"], ["--data.input_format.crop=null"]])
def test_null_in_a_group_is_said_as_an_object(words):
    assert with_nulls(["-c", "x", *words, "--k", "1"]) == [
        *["-c", "x", "--data.input_format", '{"crop": null}', "--k", "1"]
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--model.mixing", "null"],
        ["--model.a.options.b", "null"],
        ["--trainer.a.b", "null"],
        ["--data.a.b", "1"],
        ["null"],
    ],
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


class Parsed(Exception):
    pass


@pytest.fixture
def options_of(monkeypatch):
    """The backbone's options that a fit of the micro recipe would have."""

    def stop(cli):
        raise Parsed(cli.config.fit.model.init_args.backbone.init_args.options)

    def parse(*words):
        monkeypatch.setattr(TrainerCLI, "before_instantiate_classes", stop)
        with pytest.raises(Parsed) as parsed:
            TrainerCLI("fit", ["-c", str(MICRO_RECIPE), "--data.root", "x", *words])
        return parsed.value.args[0]

    return parse


NAME = "--model.backbone.options.img_size"


@pytest.mark.parametrize(
    "words", [[NAME, "null"], [f"{NAME}=null"], ["--model.init_args.backbone.init_args.options.img_size", "null"]]
)
def test_null_among_the_options_of_a_backbone_leaves_the_others(options_of, words):
    options = options_of("--model.backbone.options.drop_path_rate", "0.1", *words)
    assert options == {"drop_path_rate": 0.1, "img_size": None}


def test_a_later_value_wins_over_null(options_of):
    assert options_of(NAME, "null", NAME, "64") == {"img_size": 64}
