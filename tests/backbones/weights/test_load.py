import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch

from flatten_dense.backbones import TimmBackbone, WeightReport, load_weights
from flatten_dense.backbones.weights import sources as weight_sources

GOLDENS = Path(__file__).parents[2] / "golden"
GOLDEN_MODELS = {
    "flatten_pvt_t": ("flatten_pvt_tiny", {}),
    "extra_pvt_t_LLSS": ("flatten_pvt_tiny", {"attention": "LLSS"}),
    "flatten_pvt_v2_b0": ("flatten_pvt_v2_b0", {}),
    "extra_pvt_v2_b0_la8421": ("flatten_pvt_v2_b0", {"linear_sr_ratios": (8, 4, 2, 1)}),
    "flatten_swin_t": ("flatten_swin_tiny", {}),
    "extra_swin_t_w7_LLLL": ("flatten_swin_tiny", {"attention": "LLLL", "linear_window_size": 7}),
    "flatten_cswin_t": ("flatten_cswin_tiny", {}),
    "extra_cswin_t_LLMS2": ("flatten_cswin_tiny", {"attention": "LLMS2"}),
}
LARGE_GOLDEN_MODELS = {
    "flatten_pvt_v2_b2": ("flatten_pvt_v2_b2", {}),
    "flatten_swin_b_384": ("flatten_swin_base_384", {}),
    "flatten_cswin_b_384": ("flatten_cswin_base_384", {}),
}
MICRO = [f"flatten_{family}_test" for family in ("pvt", "pvt_v2", "swin", "cswin", "deit")]
OFFICIAL = [name for name in timm.list_models("flatten_*") if "deit" not in name]


class CfgNode(dict):
    """Pickles as yacs' own; must not be there when a file is read."""

    def __init__(self, values):
        super().__init__({key: CfgNode(value) if isinstance(value, dict) else value for key, value in values.items()})
        self.__dict__["__immutable__"] = True


@pytest.fixture
def save_official(tmp_path):
    """Writes a checkpoint as the official code does."""

    def save(model, img_size=224, **more):
        module = ModuleType("yacs.config")
        module.CfgNode = CfgNode
        config = {"DATA": {"IMG_SIZE": img_size}, "MODEL": {"TYPE": "flatten"}}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CfgNode, "__module__", "yacs.config")
            patch.setitem(sys.modules, "yacs", ModuleType("yacs"))
            patch.setitem(sys.modules, "yacs.config", module)
            optimizer = {"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
            checkpoint = {"model": model, "optimizer": optimizer, "lr_scheduler": {"t": 1}, "max_accuracy": 82.1}
            torch.save({**checkpoint, "epoch": 299, "config": CfgNode(config), **more}, tmp_path / "official.pth")
        assert "yacs" not in sys.modules
        return tmp_path / "official.pth"

    return save


@pytest.fixture
def save(tmp_path):
    def write(checkpoint):
        checkpoint = checkpoint.state_dict() if isinstance(checkpoint, torch.nn.Module) else checkpoint
        torch.save(checkpoint, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return write


def official_name(family, name):
    """Our name to the released one: written from the goldens' key sets, without a look at the loader's renaming."""
    name = re.sub(r"\.attn(\.core)+\.(?!cores)", ".attn.", name)
    stage, _, rest = name.removeprefix("stages.").partition(".")
    if not name.startswith("stages."):
        return name
    number = int(stage) + 1
    if family == "swin":
        if rest.startswith("patch_embed."):
            return rest if stage == "0" else f"layers.{int(stage) - 1}.{rest.replace('patch_embed', 'downsample')}"
        return f"layers.{stage}.{rest}"
    if family == "cswin":
        if rest.startswith("patch_embed."):
            part, _, leaf = rest.removeprefix("patch_embed.").partition(".")
            conv_embed = f"stage1_conv_embed.{0 if part == 'proj' else 2}.{leaf}"
            return conv_embed if stage == "0" else f"merge{stage}.{'conv' if part == 'proj' else part}.{leaf}"
        rest = re.sub(r"^blocks\.(\d+)\.", r"\1.", rest)
        rest = re.sub(r"^(\d+)\.attn\.(qkv|proj)\.", r"\1.\2.", rest)
        rest = re.sub(r"\.attn\.(?:core\.)?cores\.(\d)\.(?:core\.)*", r".attns.\1.", rest)
        return f"stage{number}.{rest.replace('.attn.', '.attns.0.').replace('.lepe.', '.get_v.')}"
    rest = re.sub(r"^blocks\.", f"block{number}.", rest)
    rest = re.sub(r"^(patch_embed|pos_embed|norm)\b", rf"\g<1>{number}", rest)
    return rest.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")


def official_state(variant, model):
    """The state dict of the released code for one of our models."""
    family = "pvt_v2" if "pvt_v2" in variant else variant.split("_")[1]
    state = {official_name(family, name): tensor for name, tensor in model.state_dict().items()}
    if family == "pvt":
        state |= {"norm.weight": model.head.weight[0], "norm.bias": model.head.weight[0]}
    if family == "swin":
        state["layers.2.blocks.1.attn_mask"] = torch.zeros(4, 9, 9)
        state["layers.2.blocks.0.attn.relative_position_index"] = torch.zeros(9, 9, dtype=torch.int64)
    return state


def values_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_untouched(model, before):
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def kinds(report):
    return {row.name: row.kind for row in report.rows}


def details(report, kind):
    return {row.name: row.detail for row in report.of_kind(kind)}


@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_official_file_fills_the_model_exactly(golden_io, save_official, name):
    variant, options = GOLDEN_MODELS[name]
    rows = golden_io.load(GOLDENS / f"{name}.json.gz")["state_dict"]
    official = {key: torch.from_numpy(array) for key, array in golden_io.filled(rows, check=False).items()}
    buffers = {row[0]: torch.zeros(row[1]) for row in rows if row[3] == "buffer"}
    model = timm.create_model(variant, **options)
    report = load_weights(model, save_official(official | buffers))
    assert (report.coverage, report.used) == (1, 1)
    expected = model.rename_checkpoint(official)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
    dropped = {row.name for row in report.of_kind("dropped")}
    assert {row.kind for row in report.rows} <= {"loaded", "dropped"}
    assert len(dropped) == len(official | buffers) - len(model.state_dict())


@pytest.mark.parametrize("name", GOLDEN_MODELS | LARGE_GOLDEN_MODELS)
def test_the_released_names_of_this_test_are_the_goldens(golden_io, name):
    variant, options = (GOLDEN_MODELS | LARGE_GOLDEN_MODELS)[name]
    rows = golden_io.load(GOLDENS / f"{name}.json.gz")["state_dict"]
    with torch.device("meta"):
        state = official_state(variant, timm.create_model(variant, **options))
    parameters = {row[0]: tuple(row[1]) for row in rows if row[3] == "param"}
    assert {key: tuple(tensor.shape) for key, tensor in state.items() if key in parameters} == parameters
    assert all("attn_mask" in key or "relative_position_index" in key for key in state.keys() - parameters.keys())


@pytest.mark.parametrize("variant", OFFICIAL)
def test_official_file_of_every_variant_is_used_whole(save_official, variant):
    with torch.device("meta"):
        model = timm.create_model(variant)
        path = save_official(official_state(variant, model), model.pretrained_cfg["input_size"][1])
    report = load_weights(model, path)
    assert (report.coverage, report.used) == (1, 1)
    assert {row.name for row in report.of_kind("loaded")} == set(model.state_dict())
    assert {row.kind for row in report.rows} <= {"loaded", "dropped"}


@pytest.mark.parametrize("variant", [name for name in MICRO if "deit" not in name])
def test_official_values_arrive(save_official, variant):
    source, model = timm.create_model(variant), timm.create_model(variant)
    load_weights(model, save_official(official_state(variant, source), 64))
    assert_untouched(model, values_of(source))


def test_buffers_are_dropped_with_a_word(save_official):
    model = timm.create_model("flatten_swin_test")
    report = load_weights(model, save_official(official_state("flatten_swin_test", model), 64))
    assert details(report, "dropped") == {
        "stages.2.blocks.1.attn_mask": "computed here for the size at hand",
        "stages.2.blocks.0.attn.relative_position_index": "computed here for the size at hand",
    }


@pytest.mark.parametrize(("mark", "options"), [("", {"ema": True}), ("#ema", {})])
def test_averaged_weights_on_request(save_official, mark, options):
    trained, averaged, model = (timm.create_model("flatten_cswin_test") for _ in range(3))
    path = save_official(
        official_state("flatten_cswin_test", trained),
        64,
        state_dict_ema=official_state("flatten_cswin_test", averaged),
    )
    load_weights(model, path)
    assert_untouched(model, values_of(trained))
    load_weights(model, f"{path}{mark}", **options)
    assert_untouched(model, values_of(averaged))


@pytest.mark.parametrize("variant", MICRO)
def test_own_state_dict_is_loaded_whole(save, variant):
    source, model = timm.create_model(variant), timm.create_model(variant)
    report = load_weights(model, save(source))
    assert isinstance(report, WeightReport)
    assert {row.kind for row in report.rows} == {"loaded"}
    assert_untouched(model, values_of(source))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.", "net.encoder._orig_mod."])
def test_prefixes_are_found(save, prefix):
    source, model = timm.create_model("flatten_swin_test"), timm.create_model("flatten_swin_test")
    load_weights(model, save({prefix + name: tensor for name, tensor in source.state_dict().items()}))
    assert_untouched(model, values_of(source))


def test_two_models_in_a_file_are_refused(save):
    state = timm.create_model("flatten_swin_test").state_dict()
    both = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in state.items()}
    with pytest.raises(ValueError, match=r"several such models, under 'student\.', 'teacher\.'"):
        load_weights(timm.create_model("flatten_swin_test"), save(both))


def lightning(backbone, **more):
    tensors = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    tensors |= {
        "neck.lateral.0.weight": torch.ones(4, 8),
        "neck.lateral.0.bias": torch.ones(4),
        "head.w": torch.ones(2),
    }
    return {"pytorch-lightning_version": "2.6.1", "state_dict": tensors, **more}


@pytest.mark.parametrize("variant", MICRO)
def test_lightning_checkpoint_fills_a_backbone_with_its_norms(save, variant, randomise):
    source, model = randomise(TimmBackbone(variant)), TimmBackbone(variant)
    report = load_weights(model, save(lightning(source)))
    assert_untouched(model, values_of(source))
    assert (report.coverage, report.used) == (1, 1)
    assert [(row.name, row.tensors, row.numel) for row in report.of_kind("other part")] == [
        ("neck", 2, 36),
        ("head", 1, 2),
    ]


def test_checkpoint_of_a_fit_fills_a_backbone(fitted):
    state = torch.load(fitted.best, weights_only=True)["state_dict"]
    model = TimmBackbone("flatten_pvt_test")
    report = load_weights(model, fitted.best)
    assert report.coverage == 1
    assert all(torch.equal(tensor, state[f"backbone.{name}"]) for name, tensor in model.state_dict().items())
    assert {row.name for row in report.of_kind("other part")} == {"neck", "head"}


def test_lightning_checkpoint_fills_a_plain_model(save):
    source, model = TimmBackbone("flatten_swin_test"), timm.create_model("flatten_swin_test", num_classes=3)
    report = load_weights(model, save(lightning(source)))
    assert torch.equal(model.stages[3].blocks[1].mlp.fc1.weight, source.body.model.stages[3].blocks[1].mlp.fc1.weight)
    assert kinds(report)["norms.0.weight"] == "dropped"
    assert details(report, "re-initialised") == dict.fromkeys(
        ["head.weight", "head.bias"], "the file has no classifier"
    )


def test_norms_of_maps_follow_their_stage(save, randomise):
    source = randomise(TimmBackbone("flatten_swin_test"))
    model = TimmBackbone("flatten_swin_test", out_indices=(1, 3))
    report = load_weights(model, save(lightning(source)))
    assert torch.equal(model.body.norms[0].weight, source.body.norms[1].weight)
    assert [row.name for row in report.of_kind("dropped")] == [
        f"norms.{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias")
    ]


def test_a_task_is_filled_through_its_only_backbone(save):
    source = timm.create_model("flatten_swin_test")
    task = torch.nn.ModuleDict({"backbone": TimmBackbone("flatten_swin_test"), "head": torch.nn.Linear(2, 2)})
    report = load_weights(task, save(source))
    assert torch.equal(task["backbone"].body.model.norm.weight, source.norm.weight)
    assert kinds(report)["head.weight"] == "dropped"
    assert details(report, "re-initialised")["norms.0.weight"] == "the file has none"


def test_stages_that_the_model_does_not_have_are_dropped(save):
    model = TimmBackbone("flatten_pvt_v2_test", out_indices=(0, 1))
    report = load_weights(model, save(timm.create_model("flatten_pvt_v2_test")))
    assert (report.coverage, report.used) == (1, 1)
    assert details(report, "dropped")["stages.2.patch_embed.proj.weight"] == "the model ends before this stage"


def test_learned_tables_are_resized(save):
    source = timm.create_model("flatten_pvt_test")
    model = timm.create_model("flatten_pvt_test", img_size=(64, 96))
    report = load_weights(model, save(source))
    resized = details(report, "resized")
    assert resized["stages.0.pos_embed"] == "(16, 16) -> (16, 24)"
    assert resized["stages.3.blocks.0.attn.core.positional_encoding"] == "(2, 2) -> (2, 3)"
    assert len(resized) == 8
    assert report.coverage == 1


def test_bias_tables_are_resized(save):
    model = timm.create_model("flatten_swin_test", window_size=4)
    report = load_weights(model, save(timm.create_model("flatten_swin_test")))
    assert set(details(report, "resized").values()) == {"windows (3, 3) -> (4, 4)"}


@pytest.mark.parametrize("told_by", ["argument", "recipe"])
def test_the_sources_image_size_says_its_grids(save, told_by):
    source = TimmBackbone("flatten_pvt_test", options={"img_size": (64, 96)})
    backbone = {"name": "flatten_pvt_test", "options": {"img_size": [64, 96]}}
    recipe = {"model": {"init_args": {"backbone": {"init_args": backbone}}}}
    checkpoint = lightning(source, **({"flatten_dense": {"recipe": recipe}} if told_by == "recipe" else {}))
    model = TimmBackbone("flatten_pvt_test", options={"img_size": (96, 64)})
    options = {"source_img_size": (64, 96)} if told_by == "argument" else {}
    report = load_weights(model, save(checkpoint), **options)
    assert details(report, "resized")["stages.0.pos_embed"] == "(16, 24) -> (24, 16)"


def test_a_grid_that_nothing_tells_is_refused(save):
    path = save(timm.create_model("flatten_pvt_test", img_size=(64, 96)))
    with pytest.raises(ValueError, match="source_img_size"):
        load_weights(timm.create_model("flatten_pvt_test"), path)


def test_image_channels_are_adapted(save):
    source, model = timm.create_model("flatten_pvt_test"), timm.create_model("flatten_pvt_test", in_chans=1)
    report = load_weights(model, save(source))
    assert details(report, "adapted") == {"stages.0.patch_embed.proj.weight": "3 image channels -> 1"}
    weight = source.stages[0].patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.stages[0].patch_embed.proj.weight, weight)


def test_image_channels_that_cannot_be_adapted_are_refused(save):
    path = save(timm.create_model("flatten_pvt_test", in_chans=4))
    with pytest.raises(ValueError, match="4 channels: only 3 can become the model's 5"):
        load_weights(timm.create_model("flatten_pvt_test", in_chans=5), path)


def test_classifier_of_other_classes_stays_fresh(save):
    model = timm.create_model("flatten_pvt_test", num_classes=7)
    before = values_of(model)
    report = load_weights(model, save(timm.create_model("flatten_pvt_test", num_classes=5)))
    assert torch.equal(model.head.weight, before["head.weight"])
    assert details(report, "re-initialised")["head.weight"] == "5 classes in the file, 7 here"
    assert report.coverage == 1


@pytest.mark.parametrize("told_by", ["argument", "checkpoint"])
def test_classes_are_copied_by_name(save, told_by):
    source = timm.create_model("flatten_pvt_test", num_classes=3)
    model = timm.create_model("flatten_pvt_test", num_classes=2)
    theirs = ["sky", "cat", "dog"]
    known = {"flatten_dense": {"labels": {"class_names": theirs}}} if told_by == "checkpoint" else {}
    options = {"source_class_names": theirs} if told_by == "argument" else {}
    path = save({"state_dict": source.state_dict(), **known})
    report = load_weights(model, path, class_names=("dog", "sky"), **options)
    assert torch.equal(model.head.weight, source.head.weight[[2, 0]])
    assert kinds(report)["head.bias"] == "copied by name"


@pytest.mark.parametrize(
    ("theirs", "their_options", "ours", "softmax"),
    [
        ("swin_tiny_patch4_window7_224", {}, "flatten_swin_tiny", "SSSS"),
        ("pvt_v2_b0", {}, "flatten_pvt_v2_b0", "SSSS"),
        (
            "deit_tiny_patch16_224",
            {"class_token": False, "global_pool": "avg", "fc_norm": False},
            "flatten_deit_tiny",
            "S",
        ),
    ],
)
def test_softmax_form_of_a_timm_model_gives_its_outputs(save, theirs, their_options, ours, softmax):
    torch.manual_seed(0)
    source = timm.create_model(theirs, **their_options).eval()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model = timm.create_model(ours, attention=softmax).eval()
    report = load_weights(model, save(source))
    assert {row.kind for row in report.rows} <= {"loaded", "dropped"}
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model.double()(images), source.double()(images), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("swin_tiny_patch4_window7_224", "flatten_swin_tiny"),
        ("pvt_v2_b0", "flatten_pvt_v2_b0"),
        ("deit_tiny_patch16_224", "flatten_deit_tiny"),
        ("deit_tiny_distilled_patch16_224", "flatten_deit_tiny"),
    ],
)
def test_linear_blocks_start_from_a_timm_model_with_fresh_parts_of_their_own(monkeypatch, theirs, ours):
    create = timm.create_model
    monkeypatch.setattr(weight_sources.timm, "create_model", lambda name, pretrained: create(name))
    model = create(ours)
    before = values_of(model)
    report = load_weights(model, f"timm:{theirs}")
    fresh = {row.name for row in report.of_kind("re-initialised")}
    assert fresh == {n for n in before if re.search(r"attn\.core\.(positional_encoding|scale|dwc)", n)}
    assert {row.name for row in report.of_kind("loaded")} == before.keys() - fresh
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in fresh)
    assert report.of_kind("unused") == []
    assert report.coverage > 0.8


def test_parts_of_the_other_attention_are_dropped_with_a_word(save):
    softmax = timm.create_model("flatten_swin_test", attention="SSSS")
    linear = timm.create_model("flatten_swin_test", attention="LLLL")
    word = details(load_weights(linear, save(softmax)), "dropped")
    assert set(word.values()) == {"this block's attention has no such part"}
    report = load_weights(softmax, save(linear), min_coverage=0)
    word = details(report, "dropped")
    assert set(word.values()) == {"belongs to linear attention; this block has attention without parts of its own"}
    assert set(details(report, "re-initialised").values()) == {"the file's block has linear attention"}


@pytest.mark.parametrize(
    ("given", "here", "dropped", "fresh"),
    [
        ("focused", "focused_no_dwc", {"dwc"}, set()),
        ("focused_no_dwc", "focused", set(), {"dwc"}),
        ("focused", "linear_angular", {"dwc", "scale", "positional_encoding"}, {"dwc"}),
        ("linear_angular", "focused", {"dwc"}, {"dwc", "scale", "positional_encoding"}),
        ("focused", "hydra", {"dwc", "scale", "positional_encoding"}, set()),
        ("focused", "focused_p8", set(), set()),
        ("relu", "enhanced", set(), {"dwconv"}),
        ("enhanced", "elu", {"dwconv"}, set()),
        ("focused", "enhanced", {"dwc", "scale", "positional_encoding"}, {"dwconv"}),
    ],
)
def test_what_other_linear_attention_does_not_share_is_dropped_or_fresh(save, given, here, dropped, fresh):
    source, model = (timm.create_model("flatten_deit_test", attention=name) for name in (given, here))
    report = load_weights(model, save(source), min_coverage=0)

    def parts(kind):
        return {re.search(r"dwc\b|dwconv|scale|positional_encoding", row.name)[0] for row in report.of_kind(kind)}

    assert (parts("dropped"), parts("re-initialised")) == (dropped, fresh)
    assert not report.of_kind("unused")
    torch.testing.assert_close(model.stages[0].blocks[0].attn.q.weight, source.stages[0].blocks[0].attn.q.weight)


@pytest.mark.parametrize("lost", ["attn.core.scale", "attn.core.dwc.bias", "mlp.dwconv.weight"])
def test_a_file_that_lacks_a_part_of_its_own_attention_is_refused(save, lost):
    model = timm.create_model("flatten_pvt_v2_test")
    state = model.state_dict()
    del state[f"stages.1.blocks.0.{lost}"]
    with pytest.raises(ValueError, match=f"it lacks stages.1.blocks.0.{lost}"):
        load_weights(model, save(state))


def test_reduction_that_a_block_does_not_have_is_dropped(save):
    source = timm.create_model("flatten_pvt_test", attention="SSSS")
    model = timm.create_model("flatten_pvt_test", attention="SSSS", window_size=2)
    report = load_weights(model, save(source), min_coverage=0)
    assert details(report, "dropped")["stages.0.blocks.0.attn.sr.weight"] == "this block's attention has no such part"
    assert kinds(report)["stages.0.blocks.0.attn.core.relative_position_bias_table"] == "re-initialised"


@pytest.mark.parametrize("variant", [name for name in timm.list_models("flatten_*") if not name.endswith("_test")])
def test_softmax_weights_cover_every_variant(save, variant):
    with torch.device("meta"):
        softmax = timm.create_model(variant, attention="S" if "deit" in variant else "SSSS")
        model = timm.create_model(variant)
    assert load_weights(model, save(softmax)).coverage > 0.8


@pytest.mark.parametrize(
    ("given", "model", "message"),
    [
        ("flatten_swin_small", "flatten_swin_tiny", "18 blocks in stages.2, the model 6"),
        ("flatten_swin_tiny", "flatten_swin_small", "6 blocks in stages.2, the model 18"),
        ("flatten_swin_base", "flatten_swin_small", r"proj\.weight is \(128, 3, 4, 4\), the model's \(96, 3, 4, 4\)"),
        ("flatten_pvt_v2_b3", "flatten_pvt_v2_b4", "4 blocks in stages.1, the model 8"),
        ("flatten_pvt_v2_b4", "flatten_pvt_v2_b3", "8 blocks in stages.1, the model 4"),
        ("flatten_pvt_medium", "flatten_pvt_base", "4 blocks in stages.1, the model 8"),
        ("flatten_pvt_base", "flatten_pvt_medium", "8 blocks in stages.1, the model 4"),
        ("flatten_cswin_small", "flatten_cswin_tiny", "32 blocks in stages.2, the model 18"),
        ("flatten_pvt_v2_b2", "flatten_pvt_small", r"proj\.weight is \(64, 3, 7, 7\), the model's \(64, 3, 4, 4\)"),
        ("pvt_v2_b2", "flatten_pvt_small", "downsample.proj.weight .* no place in the model"),
        ("flatten_swin_tiny", "flatten_cswin_tiny", "2 blocks in stages.1, the model 4"),
        ("flatten_deit_small", "flatten_deit_tiny", r"\(1, 196, 384\), the model's \(1, 196, 192\)"),
        ("deit3_small_patch16_224", "flatten_deit_small", r"ls1\.gamma .* no place"),
        ("swinv2_tiny_window8_256", "flatten_swin_tiny", "no place in the model"),
        (
            "resnet18",
            "flatten_pvt_tiny",
            r"no tensor of a FlattenPVT: it has conv1\.weight.*expected such as stages\.0",
        ),
    ],
)
def test_another_family_or_size_is_refused(save, given, model, message):
    with torch.device("meta"):
        path = save(timm.create_model(given))
        model = timm.create_model(model)
    with pytest.raises(ValueError, match=message):
        load_weights(model, path)


@pytest.mark.parametrize(("given", "depth"), [(3, 4), (5, 4)])
def test_another_depth_of_deit_is_refused(save, given, depth):
    path = save(timm.create_model("flatten_deit_test", depth=given))
    with pytest.raises(ValueError, match=f"it has {given} stages, the model {depth}"):
        load_weights(timm.create_model("flatten_deit_test", depth=depth), path)


@pytest.mark.parametrize(
    "name", ["stages.2.patch_embed.proj.bias", "stages.1.blocks.0.attn.core.scale", "stages.0.pos_embed"]
)
def test_a_file_that_lacks_a_tensor_is_refused(save, name):
    state = timm.create_model("flatten_pvt_test").state_dict()
    del state[name]
    model = timm.create_model("flatten_pvt_test")
    before = values_of(model)
    with pytest.raises(ValueError, match=f"lacks {name}, "):
        load_weights(model, save(state))
    assert_untouched(model, before)


def test_too_little_of_the_model_is_refused(save):
    path = save(timm.create_model("flatten_pvt_test", attention="SSSS"))
    model = timm.create_model("flatten_pvt_test", img_size=256)
    before = values_of(model)
    with pytest.raises(
        ValueError, match=r"only 57\.\d% .*min_coverage=0\.8.*positional_encoding, .*attention without parts of its own"
    ):
        load_weights(model, path)
    assert_untouched(model, before)
    assert load_weights(model, path, min_coverage=0.5).coverage < 0.8


def test_too_little_of_the_file_is_refused(save):
    state = timm.create_model("flatten_pvt_test").state_dict() | {"decoder.0.weight": torch.ones(200, 1000)}
    model = timm.create_model("flatten_pvt_test")
    with pytest.raises(ValueError, match=r"has a place in this FlattenPVT.*decoder\.\*, 200,000 parameters"):
        load_weights(model, save(state))
    assert kinds(load_weights(model, save(state), min_coverage=0.1))["decoder.0.weight"] == "unused"


def test_tensors_without_numbers_are_refused_before_any_is_written(save):
    with torch.device("meta"):
        empty = timm.create_model("flatten_pvt_test").state_dict()["stages.3.blocks.0.mlp.fc2.weight"]
    state = timm.create_model("flatten_pvt_test").state_dict() | {"stages.3.blocks.0.mlp.fc2.weight": empty}
    model = timm.create_model("flatten_pvt_test")
    before = values_of(model)
    with pytest.raises(ValueError, match=r"fc2\.weight cannot be loaded"):
        load_weights(model, save(state))
    assert_untouched(model, before)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensor: tensor.fill_(float("nan")), "numbers that are not finite"),
        (lambda tensor: tensor.fill_(float("inf")), "numbers that are not finite"),
        (lambda tensor: tensor.long(), r"torch\.int64, expected floating"),
    ],
    ids=["nan", "infinite", "integers"],
)
def test_damaged_numbers_are_refused_before_any_is_written(save, damage, message):
    name = "stages.3.blocks.0.mlp.fc2.weight"
    state = timm.create_model("flatten_pvt_test").state_dict()
    model = timm.create_model("flatten_pvt_test")
    before = values_of(model)
    with pytest.raises(ValueError, match=rf"{name} holds {message}"):
        load_weights(model, save(state | {name: damage(state[name].clone())}))
    assert_untouched(model, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_img_size": (0, 5)}, r"source_img_size must be a side or \(H, W\) in pixels, got \(0, 5\)"),
        ({"min_coverage": 80}, "from 0 to 1, got 80"),
        ({"class_names": ["a"]}, "class_names must name the 1000 classes"),
    ],
)
def test_options_that_do_not_fit_are_refused(save, options, message):
    model = timm.create_model("flatten_pvt_test")
    with pytest.raises(ValueError, match=message):
        load_weights(model, save(model), **options)


def test_what_holds_no_backbone_is_refused():
    with pytest.raises(ValueError, match="Linear holds 0"):
        load_weights(torch.nn.Linear(2, 2), "never_looked_for.pth")


def test_weights_take_the_type_of_the_model(save):
    source = timm.create_model("flatten_pvt_test").half()
    model = timm.create_model("flatten_pvt_test").double()
    load_weights(model, save(source))
    assert torch.equal(model.head.weight, source.head.weight.double())
