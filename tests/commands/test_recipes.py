from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from flatten_dense.cli import main
from flatten_dense.commands.recipes import find_recipe, recipe_directory, recipe_names
from flatten_dense.data.ade20k import ADE20KDataModule
from flatten_dense.structures import LabelSpace, default_palette
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask

# Recipe, variants, and of each: learning rate, weight decay, drop path, power and warm-up of the schedule.
PUBLISHED = [
    ("pvt_fpn", ("pvt_tiny", "pvt_small", "pvt_medium", "pvt_base"), (2e-4, 1e-4, 0.1, 0.9, 0)),
    ("swin_upernet", ("swin_tiny", "swin_small", "swin_base"), (6e-5, 0.01, 0.3, 1.0, 1500)),
    ("cswin_upernet", ("cswin_tiny", "cswin_small", "cswin_base"), (6e-5, 0.01, 0.3, 1.0, 1500)),
]


def build(recipe: str, backbone: str | None = None) -> SemanticSegmentationTask:
    """The task of a recipe, without memory for its weights."""
    model = yaml.safe_load(find_recipe(recipe).read_text())["model"]
    model["init_args"]["labels"] = LabelSpace(tuple(f"{i}" for i in range(150)), default_palette(150)).to_dict()
    if backbone is not None:
        model["init_args"]["backbone"]["name"] = backbone
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BaseTask, "model")
    with torch.device("meta"):
        return parser.instantiate(parser.parse_object({"model": model})).model


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
    with pytest.raises(ValueError, match=r"the recipes are: classification/.*, detection/.*, segmentation/"):
        find_recipe("zzz")


@pytest.mark.parametrize("name", recipe_names())
def test_head_comment_gives_the_command(name):
    head = [line for line in find_recipe(name).read_text().splitlines() if line.startswith("#")]
    assert any(f"flatten-dense fit -c {name}" in line or "flatten-dense demo" in line for line in head)


@pytest.mark.parametrize("name", recipe_names())
def test_sections_are_those_of_a_run(name):
    assert set(yaml.safe_load(find_recipe(name).read_text())) <= {"trainer", "model", "data", "save_every"}


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("segmentation/")])
def test_model_of_a_recipe_can_be_built(name):
    assert sum(parameter.numel() for parameter in build(name).parameters()) > 0


@pytest.mark.parametrize(
    ("recipe", "variant", "expected"),
    [(recipe, variant, expected) for recipe, variants, expected in PUBLISHED for variant in variants],
)
def test_recipe_trains_each_variant_as_published(recipe, variant, expected):
    learning_rate, weight_decay, drop_path, power, warm_up = expected
    task = build(f"segmentation/flatten_{recipe}_ade20k", f"flatten_{variant}")
    rates = [module.drop_prob for module in task.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(drop_path)
    task._schedule, schedule = None, task._schedule
    optimizer = task.configure_optimizers()
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (learning_rate, weight_decay)
    assert (schedule.power, schedule.warmup_steps, schedule.min_lr) == (power, warm_up, 0)
    exempt = {id(parameter) for group in optimizer.param_groups[1:] for parameter in group["params"]}
    names = {name for name, parameter in task.named_parameters() if id(parameter) in exempt}
    assert bool(names) == ("swin" in variant)
    parts = ("norm", "relative_position_bias_table", "absolute_pos_embed") if "swin" in variant else ()
    assert names == {name for name, _ in task.named_parameters() if any(part in name for part in parts)}


@pytest.mark.parametrize("recipe", [recipe for recipe, _, _ in PUBLISHED])
def test_recipe_prepares_images_as_published(recipe):
    section = yaml.safe_load(find_recipe(f"segmentation/flatten_{recipe}_ade20k").read_text())["data"]
    data = ADE20KDataModule(Path("anywhere"), **section["init_args"])
    assert (data.batch_size, data.reduce_zero_label, data.test_split) == (16, True, "validation")
    assert (data.train_scale, data.ratio_range, data.crop_size) == ((2048, 512), (0.5, 2.0), (512, 512))
    assert (data.max_class_share, data.flip, data.photometric, data.input_format.scale) == (
        0.75,
        0.5,
        True,
        (2048, 512),
    )


def test_steps_and_evaluations_are_as_published():
    steps = {40_000: 4_000, 160_000: 16_000}
    for total, every in steps.items():
        trainer = yaml.safe_load((recipe_directory() / f"base/trainer/segmentation_{total // 1000}k.yaml").read_text())
        assert (trainer["max_steps"], trainer["val_check_interval"], trainer["sync_batchnorm"]) == (total, every, True)


def test_command_lists_them(capsys):
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipe_names())
