"""The ImageNet recipes train what the paper trained, as its code did."""

import math
from functools import cache

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from flatten_dense.commands.recipes import find_recipe, recipe_names
from flatten_dense.data.base import BaseDataModule
from flatten_dense.data.classification import ImageFolderDataModule
from flatten_dense.optim import IMAGENET_NO_DECAY
from flatten_dense.structures import ClassLabels, InputFormat
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.classification import ClassificationTask

CLASSIFICATION = [name for name in recipe_names() if name.startswith("classification/")]
# Recipe, and of each: images per GPU, learning rate with 8 GPUs, epochs of warm-up, weight decay, drop path, clipping,
# decay of the averaged weights, epochs of the cosine and after it.
PUBLISHED = [
    ("pvt", (128, 1e-3, 5, 0.05, 0.1, None, None, 300, 10)),
    ("pvt_medium", (64, 5e-4, 5, 0.05, 0.3, 1.0, None, 300, 10)),
    ("pvt_v2", (128, 1e-3, 5, 0.05, 0.1, None, None, 300, 10)),
    ("pvt_v2_b3", (128, 1e-3, 5, 0.05, 0.3, 1.0, None, 300, 10)),
    ("swin_tiny", (128, 1e-3, 20, 0.05, 0.2, 5.0, None, 300, 0)),
    ("swin_small", (128, 1e-3, 20, 0.05, 0.3, 5.0, None, 300, 0)),
    ("swin_base", (64, 5e-4, 20, 0.05, 0.5, 5.0, None, 300, 0)),
    ("swin_base_384", (32, 1e-5, 5, 1e-8, 0.5, 5.0, None, 30, 0)),
    ("cswin_tiny", (256, 2e-3, 20, 0.05, 0.2, None, 0.99984, 300, 10)),
    ("cswin_small", (128, 1e-3, 20, 0.05, 0.4, None, 0.99984, 300, 10)),
    ("cswin_base", (64, 5e-4, 20, 0.1, 0.5, None, 0.99982, 300, 10)),
    ("cswin_base_384", (32, 2.5e-6, 0, 1e-8, 0.7, None, 0.99982, 20, 10)),
]
# Learning rates before scaling: where the warm-up of the models of 224 x 224 starts, and where their cosine ends.
ENDS = {"pvt": (1e-6, 1e-5), "swin": (5e-7, 5e-6), "cswin": (1e-6, 1e-5)}
# (resized to, middle cut out) of evaluation images.
EVALUATION = {"swin_base_384": (384, None), "cswin_base_384": (438, 384)}


def recipe(name: str) -> dict:
    return yaml.safe_load(find_recipe(name).read_text())


@cache
def build(name: str) -> ClassificationTask:
    """Its task, without memory for the weights."""
    model = recipe(name)["model"]
    model["init_args"]["labels"] = ClassLabels(tuple(map(str, range(1000)))).to_dict()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BaseTask, "model")
    with torch.device("meta"):
        return parser.instantiate(parser.parse_object({"model": model})).model


def build_data(name: str) -> ImageFolderDataModule:
    data = recipe(name)["data"]
    data["init_args"]["root"] = "anywhere"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BaseDataModule, "data")
    return parser.instantiate(parser.parse_object({"data": data})).data


def test_each_published_model_has_its_recipe():
    assert {f"classification/flatten_{name}_imagenet" for name, _ in PUBLISHED} == {
        name for name in CLASSIFICATION if name.endswith("_imagenet")
    }


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_task_and_data_of_a_recipe_can_be_built(name):
    assert sum(parameter.numel() for parameter in build(name).parameters()) > 0
    assert build_data(name).batch_size > 0


@pytest.mark.parametrize(("name", "expected"), PUBLISHED)
def test_optimisation_is_the_published_one(name, expected):
    images, lr, warmup, decay, drop_path, clip, averaging, epochs, cooldown = expected
    full = f"classification/flatten_{name}_imagenet"
    written, task, data = recipe(full), build(full), build_data(full)
    trainer, arguments = written["trainer"], written["model"]["init_args"]
    assert data.batch_size == images
    assert trainer["max_epochs"] == epochs + cooldown
    assert trainer.get("gradient_clip_val") == clip
    callbacks = trainer.get("callbacks", [])
    assert [callback["init_args"]["decay"] for callback in callbacks] == ([averaging] if averaging else [])
    assert arguments["backbone"]["drop_path_rate"] == drop_path
    assert arguments["optimizer"]["init_args"]["weight_decay"] == decay

    with torch.device("meta"):
        parameter = torch.nn.Parameter(torch.zeros(1))
    scale = task._groups.batch_scale(8 * images)
    steps = 100 * (epochs + cooldown)  # of 100 an epoch
    base = arguments["optimizer"]["init_args"]["lr"]
    optimizer = torch.optim.SGD([{"params": [parameter], "lr": base, "lr_scale": scale}])
    (factor,) = task._schedule(optimizer, steps).lr_lambdas
    rates = [base * factor(step) for step in range(steps + 1)]
    meanwhile = (1 + math.cos(math.pi * warmup / epochs)) / 2  # the cosine goes on under the warm-up
    assert rates[100 * warmup] == pytest.approx(lr * meanwhile, rel=1e-3)
    assert rates[100 * warmup : 100 * epochs + 1] == sorted(rates[100 * warmup : 100 * epochs + 1], reverse=True)
    assert len({round(rate, 15) for rate in rates[100 * epochs :]}) == 1
    family = name.partition("_")[0]
    if not name.endswith("384"):
        assert (rates[0] / scale, rates[-1] / scale) == pytest.approx(ENDS[family])


@pytest.mark.parametrize("name", [name for name, _ in PUBLISHED])
def test_evaluation_is_the_authors(name):
    side, crop = EVALUATION.get(name, (256, 224))
    expected = InputFormat((side, side), resize="squash", crop=crop and (crop, crop), interpolation="bicubic")
    assert build_data(f"classification/flatten_{name}_imagenet").input_format == expected


@pytest.mark.parametrize("name", [name for name, _ in PUBLISHED])
def test_augmentation_is_the_published_one(name):
    task, data = (make(f"classification/flatten_{name}_imagenet") for make in (build, build_data))
    given = data.augmentation
    assert (given.auto_augment, given.erase, given.flip) == ("rand-m9-mstd0.5-inc1", 0.25, 0.5)
    assert given.interpolation == "bicubic"
    side = 384 if name.endswith("384") else 224
    assert given.size == (side, side)
    assert (task.mixup.mixup_alpha, task.mixup.cutmix_alpha, task.mixup.label_smoothing) == (0.8, 1.0, 0.1)


@pytest.mark.parametrize("name", [name for name, _ in PUBLISHED])
def test_exemptions_from_decay_are_those_tested_for_each_family(name):
    groups = build(f"classification/flatten_{name}_imagenet")._groups
    assert (groups.no_decay, groups.exempt_1d) == (IMAGENET_NO_DECAY, True)
