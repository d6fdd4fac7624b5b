import pytest
import yaml

from flatten_dense.cli import main
from flatten_dense.commands.recipes import find_recipe, recipe_directory, recipe_names


def test_names_leave_out_the_parts_of_recipes():
    assert "segmentation/flatten_pvt_fpn_ade20k" in recipe_names()
    assert not [name for name in recipe_names() if name.startswith("base/")]


@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_packaged_recipe_is_found_by_name(suffix):
    found = find_recipe("segmentation/flatten_pvt_nano_fpn_shapes" + suffix)
    assert found == recipe_directory() / "segmentation/flatten_pvt_nano_fpn_shapes.yaml"


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.yaml"
    own.write_text("{}")
    assert find_recipe("mine.yaml").samefile(own)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"no such recipe; did you mean .*segmentation/flatten_pvt_fpn_ade20k"):
        find_recipe("segmentation/flaten_pvt_tiny_ade20k")


def test_hopeless_name_lists_all():
    with pytest.raises(ValueError, match=r"the recipes are: segmentation/"):
        find_recipe("zzz")


@pytest.mark.parametrize("name", recipe_names())
def test_head_comment_gives_the_command(name):
    head = [line for line in find_recipe(name).read_text().splitlines() if line.startswith("#")]
    assert any(f"flatten-dense fit -c {name}" in line or "flatten-dense demo" in line for line in head)


@pytest.mark.parametrize("name", recipe_names())
def test_sections_are_those_of_a_run(name):
    assert set(yaml.safe_load(find_recipe(name).read_text())) <= {"trainer", "model", "data", "save_every"}


def test_command_lists_them(capsys):
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipe_names())
