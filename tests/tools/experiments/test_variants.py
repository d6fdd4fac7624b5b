import importlib

import pytest
import yaml

from flatten_dense.backbones import TimmClassifier
from flatten_dense.commands.recipes import find_recipe
from flatten_dense.layers.cores import CORE_NAMES

EXPERIMENTS = importlib.import_module("experiments.variants").EXPERIMENTS
ALL = [(name, variant) for name, experiment in EXPERIMENTS.items() for variant in experiment.variants]


def build(experiment, variant):
    """The classifier of a variant: the recipe's, with the variant's options."""
    recipe = yaml.safe_load(find_recipe(experiment.recipe).read_text())
    backbone = recipe["model"]["init_args"]["backbone"]
    for option, value in zip(variant.options[::2], variant.options[1::2], strict=True):
        backbone["options"][option.removeprefix("--model.backbone.options.")] = yaml.safe_load(value)
    return TimmClassifier(**backbone)


def test_each_attention_there_is_is_compared():
    assert {variant.name for variant in EXPERIMENTS["cores"].variants} >= set(CORE_NAMES)


def test_attentions_stand_in_the_order_of_the_papers_scores():
    papers = [variant.paper for variant in EXPERIMENTS["cores"].variants if variant.paper is not None]
    assert papers == sorted(papers)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_models_of_an_experiment_all_differ(name):
    experiment = EXPERIMENTS[name]
    models = {repr(build(experiment, variant)) for variant in experiment.variants}
    assert len(models) == len(experiment.variants)


def test_the_largest_window_is_the_whole_map_of_the_first_stage():
    experiment = EXPERIMENTS["window"]
    *smaller, whole = experiment.variants
    stage = build(experiment, whole).body.stages[0]
    height, width = stage.blocks[0].attn.core.grid_size
    assert height == width == whole.position
    assert [variant.position for variant in smaller] == [width / 8, width / 4, width / 2]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recipe_validates_once_at_the_end(name):
    trainer = yaml.safe_load(find_recipe(EXPERIMENTS[name].recipe).read_text())["trainer"]
    assert trainer["check_val_every_n_epoch"] == trainer["max_epochs"]
