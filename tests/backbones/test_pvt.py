import math
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import group_parameters
from torch.utils.flop_counter import FlopCounterMode

import flatten_dense.backbones  # noqa: F401  registers the models
from flatten_dense.backbones.pvt import checkpoint_filter_fn

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model("flatten_pvt_test", num_classes=5)


@pytest.mark.parametrize(("name", "attention"), [("flatten_pvt_t", "LLLL"), ("extra_pvt_t_LLSS", "LLSS")])
def test_equals_official(golden_io, name, attention):
    golden = golden_io.load(GOLDEN / f"{name}.json.gz")
    official = {key: torch.from_numpy(array) for key, array in golden_io.filled(golden["state_dict"]).items()}
    model = timm.create_model("flatten_pvt_tiny", attention=attention).eval()
    model.load_state_dict(checkpoint_filter_fn({"model": official}, model))
    model.double()
    images = torch.from_numpy(golden_io.model_input(golden)).double()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features, stages = model.forward_intermediates(images)
        logits = model.forward_head(features)
    golden_io.compare(golden, logits, stages, atol=1e-10)
    assert counter.get_total_flops() // 2 == golden["macs"]
    assert sum(p.numel() for p in model.parameters()) == golden["params"] - 1024  # the norm that is never called


@pytest.mark.parametrize(
    ("variant", "official"),
    [("tiny", 12_150_504), ("small", 21_670_248), ("medium", 37_242_216), ("base", 50_649_192)],
)
def test_parameters_of_the_paper(variant, official):
    with torch.device("meta"):
        model = timm.create_model(f"flatten_pvt_{variant}")
    assert sum(p.numel() for p in model.parameters()) == official - 1024


def test_own_names_pass_the_checkpoint_filter_unchanged(model):
    state = model.state_dict()
    assert checkpoint_filter_fn(state, model) == state


def test_state_dict_round_trip(model):
    torch.manual_seed(1)
    other = timm.create_model("flatten_pvt_test", num_classes=5)
    other.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(other.eval()(images), model.eval()(images))


@pytest.mark.parametrize("options", [{}, {"attention": "LSLS"}, {"linear_sr_ratios": (4, 2, 2, 1)}])
@pytest.mark.parametrize("size", [(64, 64), (32, 32), (33, 97), (70, 45), (128, 64)])
def test_any_size(size, options):
    features = timm.create_model("flatten_pvt_test", features_only=True, **options)(torch.randn(2, 3, *size))
    levels = ((8, 4), (16, 8), (24, 16), (32, 32))
    expected = [(2, c, math.ceil(size[0] / s), math.ceil(size[1] / s)) for c, s in levels]
    assert [tuple(f.shape) for f in features] == expected
    assert all(f.isfinite().all() for f in features)


@pytest.mark.parametrize("size", [(128, 128), (128, 32), (48, 80)])
def test_tables_are_resized_from_their_own_stage(model, size):
    """A model built for the size, its tables resized beforehand, is the truth; at 128 stage 2 has stage 1's tokens."""
    built = timm.create_model("flatten_pvt_test", num_classes=5, img_size=size)
    state = model.state_dict()
    for name, tensor in built.state_dict().items():
        if name.endswith(("pos_embed", "positional_encoding")):
            torch.nn.init.normal_(state[name])
            stage = int(name.split(".")[1])
            native, wanted = 64 // 4 // 2**stage, [math.ceil(side / (4 * 2**stage)) for side in size]
            grid = state[name].view(1, native, native, -1).permute(0, 3, 1, 2)
            tensor.copy_(F.interpolate(grid, size=wanted, mode="bilinear").flatten(2).transpose(1, 2))
        else:
            tensor.copy_(state[name])
    images = torch.randn(1, 3, *size)
    torch.testing.assert_close(model(images), built(images))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 31, 64),
        torch.zeros(1, 3, 64, 16),
        torch.zeros(3, 64, 64),
        torch.zeros(1, 4, 64, 64),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ],
    ids=["low", "narrow", "no_batch", "channels", "integers"],
)
@pytest.mark.parametrize("features_only", [False, True])
def test_refuses_what_is_no_batch_of_images(images, features_only):
    model = timm.create_model("flatten_pvt_test", features_only=features_only)
    with pytest.raises(ValueError, match="images must be"):
        model(images)


@pytest.mark.parametrize("options", [{"attention": "LLL"}, {"attention": "LLXS"}, {"linear_sr_ratios": (1, 1)}])
def test_refuses_options_that_do_not_fit_four_stages(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        timm.create_model("flatten_pvt_test", **options)


@pytest.mark.parametrize("options", [{}, {"attention": "LLSS"}, {"out_indices": (1, 2), "features_only": True}])
def test_every_parameter_has_a_gradient(options):
    model = timm.create_model("flatten_pvt_test", **{"num_classes": 5, **options})
    out = model(torch.randn(2, 3, 64, 96))
    sum(o.square().sum() for o in out).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_features_only_drops_the_stages_after_the_last_one_wanted():
    model = timm.create_model("flatten_pvt_test", features_only=True, out_indices=(0, 2))
    assert model.feature_info.channels() == [8, 24]
    assert model.feature_info.reduction() == [4, 16]
    assert len(model.model.stages) == 3
    assert [tuple(f.shape) for f in model(torch.randn(1, 3, 64, 64))] == [(1, 8, 16, 16), (1, 24, 4, 4)]


@pytest.mark.parametrize("stop_early", [False, True])
def test_intermediates_are_the_outputs_of_the_stages(model, stop_early):
    images = torch.randn(1, 3, 64, 64)
    first = model.stages[0](images)
    second = model.stages[1](first)
    got = model.forward_intermediates(images, indices=[0, 1], stop_early=stop_early, intermediates_only=True)
    assert torch.equal(got[0], first)
    assert torch.equal(got[1], second)
    final, last = model.forward_intermediates(images, indices=1)
    assert torch.equal(final, last[0])
    assert torch.equal(final, model.forward_features(images))


def test_intermediates_refuse_another_format(model):
    with pytest.raises(ValueError, match="NHWC"):
        model.forward_intermediates(torch.randn(1, 3, 64, 64), output_fmt="NHWC")


def test_head_pools_the_mean(model):
    features = model.forward_features(torch.randn(2, 3, 64, 96))
    pooled = features.flatten(2).mean(2)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), pooled)
    torch.testing.assert_close(model.forward_head(features), model.head(pooled))


def test_reset_classifier(model):
    model.reset_classifier(7)
    assert model.get_classifier().out_features == model.num_classes == 7
    model.reset_classifier(0)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, model.head_hidden_size) == (2, 32)


def test_grad_checkpointing_changes_nothing(model):
    images = torch.randn(1, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_grad_checkpointing_recomputes_blocks(model):
    calls = []
    model.stages[2].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    model(torch.randn(1, 3, 64, 64)).sum().backward()
    assert len(calls) == 2


def test_stochastic_depth_rises_linearly_over_the_blocks():
    model = timm.create_model("flatten_pvt_test", depths=(1, 1, 2, 1), drop_path_rate=0.2)
    blocks = [block for stage in model.stages for block in stage.blocks]
    assert [b.drop_path1.drop_prob for b in blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert [b.drop_path2.drop_prob for b in blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize(("coarse", "groups"), [(False, 1 + 5 + 1), (True, 1 + 4 + 1)])
def test_parameter_groups_follow_the_depth(coarse, groups):
    model = timm.create_model("flatten_pvt_test", depths=(1, 1, 2, 1))
    layer = group_parameters(model, model.group_matcher(coarse), reverse=True)
    assert set(layer) == {name for name, _ in model.named_parameters()}
    assert layer["stages.0.pos_embed"] == layer["stages.0.patch_embed.proj.weight"] == 0
    assert layer["stages.1.patch_embed.proj.weight"] == layer["stages.1.blocks.0.attn.q.weight"] == 2
    assert (layer["stages.2.blocks.1.attn.q.weight"] > layer["stages.2.blocks.0.attn.q.weight"]) is not coarse
    assert layer["head.weight"] == groups - 1


def test_nothing_is_exempt_from_weight_decay_by_name(model):
    assert model.no_weight_decay() == set()


def test_default_configuration_names_existing_layers(model):
    cfg = model.default_cfg
    assert cfg["input_size"] == (3, 64, 64)
    assert cfg["pool_size"] == tuple(model.forward_features(torch.randn(1, *cfg["input_size"])).shape[-2:])
    assert isinstance(model.get_submodule(cfg["first_conv"]), torch.nn.Conv2d)
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()


def test_initialisation(model):
    core = model.stages[3].blocks[0].attn.core
    assert not core.scale.any()
    assert not core.positional_encoding.any()
    assert model.stages[0].pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.stages[3].blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert core.dwc.weight.std().item() == pytest.approx(math.sqrt(2 / 25), rel=0.2)
    assert not core.dwc.bias.any()


def test_other_image_channels():
    model = timm.create_model("flatten_pvt_test", in_chans=1, num_classes=5)
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_trains_with_finite_gradients(model, dtype):
    with torch.autocast("cpu", dtype):
        loss = model(torch.randn(2, 3, 64, 96)).float().square().sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
def test_compiles_to_one_graph(model):
    images = torch.randn(2, 3, 70, 90)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.slow
def test_exports_for_other_sizes(model):
    auto = torch.export.Dim.AUTO
    shapes = {"x": {0: auto, 2: auto, 3: auto}}
    exported = torch.export.export(model.eval(), (torch.randn(2, 3, 71, 91),), dynamic_shapes=shapes).module()
    images = torch.randn(3, 3, 128, 75)
    torch.testing.assert_close(exported(images), model(images))
