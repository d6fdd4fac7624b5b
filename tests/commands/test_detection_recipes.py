"""The detection recipes build what the paper trained, and train it as its sibling recipes do."""

import math

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from flatten_dense.commands.recipes import find_recipe, recipe_names
from flatten_dense.data.base import BaseDataModule
from flatten_dense.data.detection import CocoDataModule
from flatten_dense.heads import CascadeMaskRCNNHead, MaskRCNNHead, RetinaNetHead
from flatten_dense.structures import DetectionLabels, default_palette
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.detection import DetectionTask

DETECTION = [name for name in recipe_names() if name.startswith("detection/")]
# Recipe, head, and: millions of parameters, learning rate, weight decay, drop path, epochs, epochs before each drop.
PUBLISHED = [
    ("pvt_retinanet_1x", RetinaNetHead, (21.89, 1e-4, 1e-4, 0.1, 12, (8, 11))),
    ("pvt_mask_rcnn_1x", MaskRCNNHead, (31.80, 2e-4, 1e-4, 0.1, 12, (8, 11))),
    ("swin_mask_rcnn_1x", MaskRCNNHead, (48.70, 1e-4, 0.05, 0.1, 12, (8, 11))),
    ("swin_mask_rcnn_3x", MaskRCNNHead, (48.70, 1e-4, 0.05, 0.2, 36, (27, 33))),
    ("swin_cascade_mask_rcnn_1x", CascadeMaskRCNNHead, (86.53, 1e-4, 0.05, 0.0, 12, (8, 11))),
    ("swin_cascade_mask_rcnn_3x", CascadeMaskRCNNHead, (86.53, 1e-4, 0.05, 0.2, 36, (27, 33))),
]
STEPS_OF_AN_EPOCH = 7330  # of COCO's 117266 photos with objects, 16 a step


def sections(name: str) -> dict:
    """A recipe, with the files that it names in place of their names."""
    path = find_recipe(name)
    recipe = yaml.safe_load(path.read_text())
    for section, value in recipe.items():
        if isinstance(value, str):
            recipe[section] = yaml.safe_load((path.parent / value).read_text())
    return recipe


def build(name: str) -> DetectionTask:
    """Its task, without memory for the weights."""
    model = sections(name)["model"]
    labels = DetectionLabels(tuple(map(str, range(80))), default_palette(80), tuple(range(1, 81)))
    model["init_args"]["labels"] = labels.to_dict()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BaseTask, "model")
    with torch.device("meta"):
        return parser.instantiate(parser.parse_object({"model": model})).model


def build_data(name: str) -> CocoDataModule:
    data = sections(name)["data"]
    data["init_args"]["root"] = "anywhere"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BaseDataModule, "data")
    return parser.instantiate(parser.parse_object({"data": data})).data


def test_each_published_model_has_its_recipe():
    published = {f"detection/flatten_{recipe}_coco" for recipe, _, _ in PUBLISHED}
    assert {name for name in DETECTION if name.endswith("_coco")} == published


@pytest.mark.parametrize("name", DETECTION)
def test_a_recipe_gives_a_detector_and_its_data(name):
    assert isinstance(build(name), DetectionTask)
    assert isinstance(build_data(name), CocoDataModule)


@pytest.mark.parametrize(("recipe", "head", "expected"), PUBLISHED)
def test_a_recipe_trains_as_published(recipe, head, expected):
    millions, learning_rate, weight_decay, drop_path, epochs, drops = expected
    name = f"detection/flatten_{recipe}_coco"
    task = build(name)
    assert isinstance(task.head, head)
    assert round(sum(parameter.numel() for parameter in task.parameters()) / 1e6, 2) == millions
    rates = [module.drop_prob for module in task.modules() if type(module).__name__ == "DropPath"]
    assert max(rates, default=0) == pytest.approx(drop_path)
    task._schedule, schedule = None, task._schedule
    optimizer = task.configure_optimizers()
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (learning_rate, weight_decay)
    exempt = {id(parameter) for group in optimizer.param_groups[1:] for parameter in group["params"]}
    parts = ("norm", "relative_position_bias_table", "absolute_pos_embed") if "swin" in recipe else ()
    assert {name for name, parameter in task.named_parameters() if id(parameter) in exempt} == {
        name for name, _ in task.named_parameters() if any(part in name for part in parts)
    }
    curve = schedule.curve(learning_rate, epochs * STEPS_OF_AN_EPOCH)
    steps = [epoch * STEPS_OF_AN_EPOCH for epoch in (*drops, epochs)]
    assert [round(math.log10(curve(step - 1))) for step in steps] == [0, -1, -2]
    assert (schedule.warmup_steps, schedule.warmup_ratio) == (500, 0.001)
    trainer = sections(name)["trainer"]
    assert (trainer["max_epochs"], trainer["sync_batchnorm"]) == (epochs, True)


@pytest.mark.parametrize("recipe", [recipe for recipe, _, _ in PUBLISHED])
def test_a_recipe_prepares_photos_as_published(recipe):
    data = build_data(f"detection/flatten_{recipe}_coco")
    assert (data.batch_size, data.flip, data.photometric, data.keep_empty) == (16, 0.5, False, False)
    assert (data.train_scale, data.input_format.scale) == ((1333, 800), (1333, 800))
    if "swin" in recipe:
        assert data.short_sides == list(range(480, 801, 32))
        assert (data.crop, data.crop_short_sides, data.crop_range) == (0.5, (400, 500, 600), (384, 600))
    else:
        assert (data.short_sides, data.crop) == (None, 0)
