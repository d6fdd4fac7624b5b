"""What every registered variant keeps to; on the meta device, so that the big ones cost nothing."""

import math

import pytest
import timm
import torch

import flatten_dense.backbones  # noqa: F401  registers the models

VARIANTS = timm.list_models("flatten_*")


@pytest.fixture(scope="module", params=VARIANTS)
def model(request):
    with torch.device("meta"):
        return timm.create_model(request.param)


def images(model, batch=1):
    return torch.zeros(batch, *model.default_cfg["input_size"], device="meta")


def test_all_variants_are_registered():
    assert set(VARIANTS) >= {
        *(f"flatten_deit_{size}" for size in ("tiny", "small", "base", "test")),
        *(f"flatten_pvt_{size}" for size in ("tiny", "small", "medium", "base", "test")),
        *(f"flatten_pvt_v2_{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b5", "test")),
        *(f"flatten_swin_{size}" for size in ("tiny", "small", "base", "base_384", "test")),
        *(f"flatten_cswin_{size}" for size in ("tiny", "small", "base", "base_384", "test")),
    }


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        # As published in code; PVT's without the 1,024 of a norm that is never called.
        ("flatten_pvt_tiny", 12_150_504 - 1024),
        ("flatten_pvt_small", 21_670_248 - 1024),
        ("flatten_pvt_medium", 37_242_216 - 1024),
        ("flatten_pvt_base", 50_649_192 - 1024),
        ("flatten_swin_tiny", 29_192_384),
        ("flatten_swin_small", 50_510_288),
        ("flatten_swin_base", 88_972_488),
        ("flatten_swin_base_384", 91_433_928),
        ("flatten_deit_tiny", 6_190_888),
    ],
)
def test_parameters(variant, parameters):
    with torch.device("meta"):
        model = timm.create_model(variant)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("variant", "attention", "parameters"),
    [
        ("flatten_swin_tiny", "SSSS", 28_288_354),
        ("flatten_swin_small", "SSSS", 49_606_258),
        ("flatten_swin_base", "SSSS", 87_768_224),
        ("flatten_pvt_v2_b0", "SSSS", 3_666_760),
        ("flatten_pvt_v2_b1", "SSSS", 14_009_000),
        ("flatten_deit_tiny", "S", 5_717_416 - 2 * 192),  # without the class token and its position
    ],
)
def test_parameters_of_the_softmax_originals(variant, attention, parameters):
    with torch.device("meta"):
        model = timm.create_model(variant, attention=attention)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("attention", "millions"),
    [
        ("hydra", "5.7"),
        ("efficient", "5.7"),
        ("linear_angular", "5.7"),
        ("enhanced", "5.8"),
        ("relu", "5.7"),
    ],
)
def test_parameters_of_the_papers_linear_attentions_on_deit_tiny(attention, millions):
    # arXiv 2308.00442, Tables 3a and 4.
    with torch.device("meta"):
        model = timm.create_model("flatten_deit_tiny", attention=attention)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}" == millions


def test_default_configuration_is_complete(model):
    cfg = model.default_cfg
    assert {"num_classes", "input_size", "pool_size", "crop_pct", "interpolation", "mean", "std"} <= set(cfg)
    assert isinstance(model.get_submodule(cfg["first_conv"]), torch.nn.Conv2d)
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert model.get_classifier().out_features == cfg["num_classes"] == 1000
    assert not cfg["fixed_input_size"]


def test_pool_size_is_the_size_of_the_final_features(model):
    features = model.forward_features(images(model))
    assert tuple(features.shape) == (1, model.num_features, *model.default_cfg["pool_size"])


def test_feature_info_is_true(model):
    side = model.default_cfg["input_size"][1]
    maps = model.forward_intermediates(images(model, 2), intermediates_only=True)
    assert len(maps) == len(model.feature_info)
    for info, out in zip(model.feature_info, maps, strict=True):
        size = math.ceil(side / info["reduction"])
        assert tuple(out.shape) == (2, info["num_chs"], size, size)
        assert model.get_submodule(info["module"]) is not None


def test_every_parameter_has_a_layer_group(model):
    for coarse in (False, True):
        groups = timm.models.group_parameters(model, model.group_matcher(coarse), reverse=True)
        assert set(groups) == {name for name, _ in model.named_parameters()}
        first = groups[model.default_cfg["first_conv"] + ".weight"]
        assert first == min(groups.values())
        assert groups[model.default_cfg["classifier"] + ".weight"] == max(groups.values())
        depths = [groups[f"stages.{i}.blocks.0.norm1.weight"] for i in range(len(model.stages))]
        assert depths == sorted(set(depths))


def test_only_tables_of_position_are_exempt_from_weight_decay(model):
    names = {name.rpartition(".")[2] for name in model.no_weight_decay()}
    assert names <= {"relative_position_bias_table", "pos_embed"}
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


def test_state_dict_holds_parameters_alone(model):
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
