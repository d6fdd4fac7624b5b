import copy

import pytest
import torch

from flatten_dense.backbones import TimmBackbone, TimmClassifier, TimmModel


def learning(model: TimmModel) -> set[str]:
    """First parts of the names of what learns, down to the number of a stage."""
    names = (name for name, parameter in model.body.named_parameters() if parameter.requires_grad)
    return {".".join(name.split(".")[: 2 if name.startswith("stages") else 1]) for name in names}


def test_first_stages_are_frozen_with_their_patch_embeddings():
    model = TimmClassifier("flatten_swin_test")
    model.freeze(2)
    assert learning(model) == {"stages.2", "stages.3", "norm", "head"}


def test_stem_of_a_convolutional_model_is_frozen_with_its_first_stage():
    model = TimmClassifier("resnet18")
    model.freeze(1)
    assert learning(model) == {"layer2", "layer3", "layer4", "fc"}


def test_a_backbone_without_its_classifier_is_frozen_by_stages_too():
    model = TimmBackbone("swin_tiny_patch4_window7_224")
    model.freeze(3)
    assert learning(model) == {"layers_3"}


@pytest.mark.parametrize("name", ["flatten_swin_test", "resnet18", "poolformer_s12"])
def test_all_but_the_classifier_is_frozen(name):
    model = TimmClassifier(name)
    model.freeze()
    assert {name for name, p in model.body.named_parameters() if p.requires_grad} == {
        name
        for name, _ in model.body.named_parameters()
        if name.startswith(("head.weight", "head.bias", "fc.", "head.fc."))
    }


def test_frozen_norms_keep_their_statistics_and_others_do_not():
    model = TimmClassifier("resnet18").train()
    model.freeze(2)
    before = copy.deepcopy(model.state_dict())
    model(torch.randn(2, 3, 64, 64))
    changed = {
        name.split(".")[1] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"layer3", "layer4"}


def test_frozen_stages_drop_no_paths():
    model = TimmBackbone("flatten_pvt_test", drop_path_rate=0.9).train()
    model.freeze(3)
    images = torch.randn(8, 3, 64, 64)
    first, second = model(images), model(images)
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True, True, True, False]


@pytest.mark.parametrize(("stages", "same"), [(1, True), (0, False)])
def test_dropout_between_frozen_parts_rests_too(stages, same):
    model = TimmClassifier("vit_tiny_patch16_224", options={"pos_drop_rate": 0.5, "depth": 2}).train()
    model.freeze(stages)
    tokens = [model.body.pos_drop(torch.ones(4, 9, 192)) for _ in range(2)]
    assert torch.equal(*tokens) == same


def test_dropout_before_a_learning_classifier_works_on():
    model = TimmClassifier("flatten_pvt_test", options={"drop_rate": 0.5}).train()
    model.freeze()
    assert model.body.head_drop.training
    assert not model.body.stages[3].training


def test_freezing_fewer_stages_lets_the_others_learn_again():
    model = TimmClassifier("flatten_pvt_test").train()
    model.freeze(4)
    model.freeze(1)
    assert learning(model) == {"stages.1", "stages.2", "stages.3", "head"}
    assert not model.body.stages[0].training
    assert all(module.training for module in model.body.stages[1:].modules())


def test_what_a_model_keeps_fixed_by_itself_stays_fixed():
    model = TimmClassifier("vit_tiny_patch16_224", options={"depth": 2})
    model.body.pos_embed.requires_grad_(False)
    model.freeze(1)
    model.freeze(0)
    assert not model.body.pos_embed.requires_grad
    assert model.body.cls_token.requires_grad


def test_evaluation_and_back_leaves_frozen_stages_at_rest():
    model = TimmClassifier("flatten_pvt_test")
    model.freeze(1)
    model.eval().train()
    assert [stage.training for stage in model.body.stages] == [False, True, True, True]


def test_more_stages_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"0 to the 4 stages of backbone 'resnet18', or -1 .* got 5"):
        TimmBackbone("resnet18").freeze(5)
