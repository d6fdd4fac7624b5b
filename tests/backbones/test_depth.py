import pytest
import timm
import torch
from timm.models import group_parameters

from flatten_dense.backbones import TimmBackbone, TimmClassifier
from flatten_dense.backbones.depth import pretrained_names

# Every way in which timm makes a backbone of a classifier: ours, a list of modules taken out of containers or not, a
# class of its own, hooks, and a getter.
BACKBONES = [
    "flatten_pvt_v2_test",
    "flatten_swin_test",
    "resnet18",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_050",
    "vit_tiny_patch16_224",
    "coat_lite_tiny",
]


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_has_the_depths_of_its_classifier(name: str) -> None:
    dense, classifier = TimmBackbone(name), TimmClassifier(name)
    for of_dense, of_classifier in (
        (dense.depth.stages, classifier.depth.stages),
        (dense.depth.below_head, classifier.depth.below_head),
    ):
        theirs = {key.replace(".", "_"): value for key, value in of_classifier.items()}
        found = {key: theirs[key.removeprefix("model.").removeprefix("body.").replace(".", "_")] for key in of_dense}
        assert found == of_dense


@pytest.mark.parametrize("name", ["flatten_pvt_test", "resnet18", "convnext_atto"])
def test_stages_of_a_pyramid_are_those_of_its_maps(name: str) -> None:
    assert TimmBackbone(name).num_stages == 4


@pytest.mark.parametrize(("name", "blocks"), [("vit_tiny_patch16_224", 12), ("flatten_deit_tiny", 12)])
def test_stages_of_a_plain_transformer_are_its_blocks(name: str, blocks: int) -> None:
    with torch.device("meta"):
        assert TimmClassifier(name).num_stages == blocks


def test_the_stem_lies_in_the_first_stage_and_the_last_norm_in_the_last() -> None:
    stages = TimmClassifier("flatten_swin_test").depth.stages
    assert stages["stages.0.patch_embed.proj.weight"] == 0
    assert stages["norm.weight"] == 3
    assert TimmClassifier("swin_tiny_patch4_window7_224").depth.stages["norm.weight"] == 3


def test_layers_are_counted_by_timm() -> None:
    model = timm.create_model("flatten_cswin_test")
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    below = TimmClassifier("flatten_cswin_test").depth.below_head
    assert {name: layers["head.weight"] - layer for name, layer in layers.items() if "head" not in name} == below


@pytest.mark.parametrize(("name", "fresh"), [("flatten_swin_test", {"head"}), ("resnet18", {"fc"})])
def test_the_classifier_is_not_pretrained(name: str, fresh: set[str]) -> None:
    body = timm.create_model(name)
    assert {key.partition(".")[0] for key, _ in body.named_parameters() if key not in pretrained_names(body)} == fresh


def test_norms_for_dense_heads_are_not_pretrained() -> None:
    body = TimmBackbone("flatten_swin_test").body
    names = {name for name, _ in body.named_parameters()}
    assert {name.partition(".")[0] for name in names - set(pretrained_names(body))} == {"norms"}


def test_a_model_whose_layers_timm_does_not_say_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not say the layers of a MetaFormer: leave layer_decay at 1"):
        _ = TimmBackbone("poolformer_s12").depth
