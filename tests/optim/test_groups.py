import re
from typing import Any

import pytest
import timm
import torch
from jsonargparse import ArgumentParser
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.optim import AdamW

from flatten_dense.backbones import TimmClassifier
from flatten_dense.optim import IMAGENET_NO_DECAY, SWIN_DENSE_NO_DECAY, ParameterGroups


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, 4)
        self.norm1 = nn.LayerNorm(4)
        self.bn = nn.BatchNorm2d(4)
        self.positional_encoding = nn.Parameter(torch.zeros(1, 9, 4))
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, 9, 4))
        self.attn = nn.ParameterDict({"relative_position_bias_table": torch.zeros(9, 2), "bias": torch.zeros(2, 2)})


def names(model: nn.Module, group: dict[str, Any]) -> set[str]:
    of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {of[id(parameter)] for parameter in group["params"]}


@pytest.mark.parametrize("exempt_1d", [False, True])
@pytest.mark.parametrize("no_decay", [(), SWIN_DENSE_NO_DECAY, IMAGENET_NO_DECAY])
def test_every_parameter_is_in_exactly_one_group(no_decay: tuple[str, ...], exempt_1d: bool) -> None:
    model = Model()
    grouped = [id(p) for group in ParameterGroups(no_decay, exempt_1d)(model, {}) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_semantic_fpn_rule_decays_everything() -> None:
    model = Model()
    (group,) = ParameterGroups()(model, {})
    assert "weight_decay" not in group
    assert names(model, group) == {name for name, _ in model.named_parameters()}


def test_swin_rule_exempts_by_name_and_still_decays_biases_and_bn() -> None:
    model = Model()
    decayed, exempt = ParameterGroups(SWIN_DENSE_NO_DECAY)(model, {})
    assert exempt["weight_decay"] == 0
    assert names(model, decayed) == {
        "proj.weight",
        "proj.bias",
        "bn.weight",
        "bn.bias",
        "attn.bias",
        "positional_encoding",
    }


def test_imagenet_rule_exempts_vectors_and_tables_but_decays_positional_encodings() -> None:
    model = Model()
    decayed, _ = ParameterGroups(IMAGENET_NO_DECAY, exempt_1d=True)(model, {})
    assert names(model, decayed) == {"proj.weight", "positional_encoding"}


def test_parameters_that_fsdp_made_vectors_are_sorted_as_what_they_were() -> None:
    model = Model()
    dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
    sharded = nn.Module()
    sharded._fsdp_wrapped_module = model
    for parameter in model.parameters():
        parameter.data = parameter.data.flatten()
    decayed, _ = ParameterGroups(IMAGENET_NO_DECAY, exempt_1d=True)(sharded, {}, dimensions=dimensions)
    assert names(model, decayed) == {"proj.weight", "positional_encoding"}


def test_frozen_parameters_are_left_out() -> None:
    model = Model()
    model.proj.requires_grad_(False)
    grouped = [names(model, group) for group in ParameterGroups(exempt_1d=True)(model, {})]
    assert not {"proj.weight", "proj.bias"} & set.union(*grouped)


def test_wholly_frozen_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        ParameterGroups()(nn.Linear(2, 2).requires_grad_(False), {})


def test_without_a_weight_decay_the_optimisers_own_holds_for_the_decayed_group_only() -> None:
    optimizer = AdamW(ParameterGroups(no_decay=("norm",))(Model(), {}), lr=1e-3, weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def starred(model: nn.Module, group: dict[str, Any]) -> set[str]:
    return {re.sub(r"\.\d+(?=\.)", ".*", name) for name in names(model, group)}


EVERYWHERE = {
    "head.weight",
    "stages.*.patch_embed.proj.weight",
    *(f"stages.*.blocks.*.{leaf}" for leaf in ("attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")),
}
CORE = {f"stages.*.blocks.*.attn.core.{leaf}" for leaf in ("dwc.weight", "positional_encoding", "scale")}
Q_KV = {"stages.*.blocks.*.attn.q.weight", "stages.*.blocks.*.attn.kv.weight"}
QKV = {"stages.*.blocks.*.attn.qkv.weight"}
DECAYED = {
    "flatten_deit_test": EVERYWHERE | CORE | Q_KV | {"stages.*.pos_embed"},
    "flatten_pvt_test": EVERYWHERE | CORE | Q_KV | {"stages.*.pos_embed"},
    "flatten_pvt_v2_test": EVERYWHERE | CORE | Q_KV | {"stages.*.blocks.*.mlp.dwconv.weight"},
    "flatten_swin_test": EVERYWHERE | CORE | QKV | {"stages.*.patch_embed.reduction.weight"},
    "flatten_cswin_test": EVERYWHERE
    | QKV
    | {name.replace("attn.core.", "attn.core.core.") for name in CORE}
    | {"stages.*.blocks.*.attn.core.cores.*.core.lepe.weight", "stages.*.blocks.*.attn.core.lepe.weight"},
}
SWIN_TABLE = "stages.*.blocks.*.attn.core.relative_position_bias_table"


@pytest.mark.parametrize("name", DECAYED)
def test_imagenet_recipes_decay_matrices_and_encodings_and_nothing_else(name: str) -> None:
    model = timm.create_model(name)
    decayed, exempt = ParameterGroups(IMAGENET_NO_DECAY, exempt_1d=True)(model, {})
    assert starred(model, decayed) == DECAYED[name]
    assert all(leaf.endswith("bias") or "norm" in leaf or leaf == SWIN_TABLE for leaf in starred(model, exempt))


def test_without_options_there_is_one_group_at_the_full_rate() -> None:
    assert [group["lr_scale"] for group in ParameterGroups()(Model(), {})] == [1.0]


@pytest.mark.parametrize("name", ["flatten_pvt_v2_test", "flatten_swin_test", "resnet18", "vit_tiny_patch16_224"])
def test_layer_decay_is_timms(name: str) -> None:
    backbone = TimmClassifier(name)
    expected = {
        id(parameter): (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(backbone.body, 0.05, layer_decay=0.7)
        for parameter in group["params"]
    }
    groups = ParameterGroups(exempt_1d=True, layer_decay=0.7)(backbone.body, backbone.depth.below_head)
    ours = {
        id(parameter): (pytest.approx(group["lr_scale"]), group.get("weight_decay", 0.05))
        for group in groups
        for parameter in group["params"]
    }
    assert ours == expected


def test_the_highest_rate_comes_first_and_is_the_heads() -> None:
    model = Model()
    groups = ParameterGroups(layer_decay=0.5, head_lr=10)(model, {"proj.weight": 1, "proj.bias": 2})
    assert [group["lr_scale"] for group in groups] == [10, 0.5, 0.25]
    assert [names(model, group) for group in groups[1:]] == [{"proj.weight"}, {"proj.bias"}]


def test_head_lr_leaves_the_backbone_alone() -> None:
    model = Model()
    (first, second) = ParameterGroups(head_lr=0.1)(model, {"proj.weight": 0, "proj.bias": 0})
    assert (first["lr_scale"], names(model, first)) == (1.0, {"proj.weight", "proj.bias"})
    assert second["lr_scale"] == pytest.approx(0.1)


def test_the_rate_grows_with_the_images_of_a_step() -> None:
    assert [ParameterGroups(reference_batch=512).batch_scale(images) for images in (512, 1024, 64)] == [1, 2, 0.125]
    assert ParameterGroups().batch_scale(64) == 1


@pytest.mark.parametrize(
    ("option", "value"), [("layer_decay", 0.0), ("layer_decay", 1.5), ("head_lr", 0.0), ("reference_batch", 0)]
)
def test_options_out_of_range_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"groups.{option}"):
        ParameterGroups(**{option: value})


def test_one_option_of_a_recipes_groups_is_replaced() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--groups", type=ParameterGroups, default=ParameterGroups())
    config = parser.parse_args(["--config", '{"groups": {"no_decay": ["norm"]}}', "--groups.layer_decay", "0.75"])
    assert parser.instantiate(config).groups == ParameterGroups(("norm",), layer_decay=0.75)
