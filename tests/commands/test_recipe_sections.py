import pytest

from flatten_dense.commands.recipe_sections import class_named, recipe_section


def test_a_section_stands_in_the_recipe_or_in_a_file_beside_it(tmp_path):
    (tmp_path / "data.yaml").write_text("class_path: A\n")
    (tmp_path / "recipe.yaml").write_text("data: data.yaml\nmodel: {class_path: B}\n")
    assert recipe_section(tmp_path / "recipe.yaml", "data") == {"class_path": "A"}
    assert recipe_section(tmp_path / "recipe.yaml", "model") == {"class_path": "B"}


def test_a_recipe_without_the_section_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("model: {}\n")
    with pytest.raises(ValueError, match=r"recipe.yaml: the recipe has no section 'data'"):
        recipe_section(tmp_path / "recipe.yaml", "data")


def test_what_is_no_yaml_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text("a: [\n")
    with pytest.raises(ValueError, match=r"recipe.yaml: this is no YAML file"):
        recipe_section(tmp_path / "recipe.yaml", "data")


@pytest.mark.parametrize(
    ("section", "name"), [("A", "A"), ({"class_path": "mine.A"}, "A"), ({"init_args": {}}, None), (None, None)]
)
def test_a_class_is_named_or_not(section, name):
    assert class_named(section) == name
