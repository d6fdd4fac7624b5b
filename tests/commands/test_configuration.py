import json

import pytest

from flatten_dense.commands.configuration import with_recipes
from flatten_dense.commands.recipes import recipe_directory

NAME = "segmentation/flatten_pvt_nano_fpn_shapes"


def test_a_recipe_gives_its_file_and_its_name():
    options = with_recipes("fit", ["-c", NAME, "--data.root", "x"])
    path = str(recipe_directory() / f"{NAME}.yaml")
    assert options == ["--name", "flatten_pvt_nano_fpn_shapes", "--config", path, "--data.root", "x"]


def test_the_name_is_that_of_the_first_recipe(tmp_path):
    (tmp_path / "delta.yaml").write_text("{}")
    assert with_recipes("fit", ["-c", NAME, "-c", str(tmp_path / "delta.yaml")])[1] == "flatten_pvt_nano_fpn_shapes"


def test_what_the_user_says_comes_after_the_checkpoint(fitted, tmp_path):
    (tmp_path / "delta.yaml").write_text("{}")
    options = with_recipes("test", ["-c", str(tmp_path / "delta.yaml"), f"--ckpt_path={fitted.best}"])
    first, second = (options[index + 1] for index, option in enumerate(options) if option == "--config")
    assert json.loads(first)["model"]["class_path"].endswith("SemanticSegmentationTask")
    assert second == str(tmp_path / "delta.yaml")


def test_predict_takes_no_data_section_of_training(fitted):
    options = with_recipes("predict", ["--ckpt_path", str(fitted.best), "--input", "x"])
    assert set(json.loads(options[1])["data"]) == {"labels", "input_format"}


def test_resume_takes_the_config_of_the_run(fitted):
    options = with_recipes("fit", ["--ckpt_path", str(fitted.best)])
    assert options == ["--config", str(fitted.run / "config.yaml"), "--ckpt_path", str(fitted.best)]


@pytest.mark.parametrize("option", ["--help", "--print_config", "--data.help=ADE20KDataModule"])
def test_help_needs_neither_recipe_nor_checkpoint(option):
    assert with_recipes("fit", [option]) == [option]
    assert with_recipes("test", [option]) == [option]
