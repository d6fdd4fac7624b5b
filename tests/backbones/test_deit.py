import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from flatten_dense.layers import FocusedLinearAttention, SoftmaxAttention


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_softmax_in_every_block_is_timms_deit_without_class_token(randomise, name):
    """Class and distillation tokens cannot be kept: the file that has them loads into the model that has none."""
    with_tokens = randomise(timm.create_model(name, num_classes=5, depth=2)).double()
    options = {"class_token": False, "global_pool": "avg", "fc_norm": False, "depth": 2}
    theirs = timm.create_model("deit_tiny_patch16_224", num_classes=5, **options).double().eval()
    ours = timm.create_model("flatten_deit_tiny", num_classes=5, attention="S", depth=2).double().eval()
    state = with_tokens.state_dict()
    tokens = 2 if "distilled" in name else 1
    plain = {k: v for k, v in state.items() if not k.startswith(("cls_token", "dist_token", "head_dist"))}
    theirs.load_state_dict({**plain, "pos_embed": state["pos_embed"][:, tokens:]})
    renamed = ours.rename_checkpoint(state)
    ours.load_state_dict({key: tensor for key, tensor in renamed.items() if ours.why_useless(key) is None})
    images = torch.randn(1, 3, 224, 224).double()
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-9, atol=1e-9)


def test_a_table_without_class_token_is_taken_whole():
    model = timm.create_model("flatten_deit_test")
    for rows in (16, 25):
        state = {"cls_token": torch.zeros(1, 1, 24), "pos_embed": torch.randn(1, rows, 24)}
        assert torch.equal(model.rename_checkpoint(state)["stages.0.pos_embed"], state["pos_embed"])


@pytest.mark.parametrize(("img_size", "rows"), [((48, 80), 15), (64, 16), (64, 25)])
def test_the_row_of_a_class_token_is_left_out(img_size, rows):
    """Also where the rows of a grid that is not square make a square with the token's."""
    model = timm.create_model("flatten_deit_test", img_size=img_size)
    table = torch.randn(1, rows + 1, 24)
    renamed = model.rename_checkpoint({"cls_token": torch.zeros(1, 1, 24), "pos_embed": table})
    assert torch.equal(renamed["stages.0.pos_embed"], table[:, 1:])


def test_multiply_accumulates_of_the_paper():
    with torch.device("meta"):
        model, images = timm.create_model("flatten_deit_tiny"), torch.zeros(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        model(images)
    assert round(counter.get_total_flops() / 2e9, 1) == 1.1


def test_every_block_is_a_stage_at_stride_16():
    model = timm.create_model("flatten_deit_tiny")
    assert [(info["num_chs"], info["reduction"]) for info in model.feature_info] == [(192, 16)] * 12
    assert model.stages[0].blocks[0].attn.core.num_heads == 3


def test_features_only_gives_the_last_blocks():
    features = timm.create_model("flatten_deit_tiny", features_only=True)
    assert (features.feature_info.channels(), features.feature_info.reduction()) == ([192] * 4, [16] * 4)
    assert list(features.out_indices) == [8, 9, 10, 11]


def test_dense_heads_get_the_last_block():
    features = timm.create_model("flatten_deit_tiny", features_only=True, dense_maps=True)
    assert list(features.out_indices) == [11]


def test_norm_applies_to_every_block(randomise):
    model = randomise(timm.create_model("flatten_deit_test")).eval()
    images = torch.randn(1, 3, 64, 64)
    raw = model.forward_intermediates(images, intermediates_only=True)
    normed = model.forward_intermediates(images, norm=True, intermediates_only=True)
    for before, after in zip(raw, normed, strict=True):
        assert torch.equal(after, model.norm(before.movedim(1, -1)).movedim(-1, 1))


def test_the_first_blocks_of_a_mixed_model_are_linear():
    model = timm.create_model("flatten_deit_test", attention="M3")
    cores = [type(stage.blocks[0].attn.core) for stage in model.stages]
    assert cores == [FocusedLinearAttention] * 3 + [SoftmaxAttention]


def test_the_table_of_positions_is_exempt_from_weight_decay():
    model = timm.create_model("flatten_deit_test")
    assert model.no_weight_decay() == {"stages.0.pos_embed"}


def test_no_patch_is_refused():
    with pytest.raises(ValueError, match="patch_size must be at least 1"):
        timm.create_model("flatten_deit_test", patch_size=0)


def test_another_patch_size():
    model = timm.create_model("flatten_deit_test", patch_size=8, features_only=True, out_indices=(3,))
    assert model.feature_info.reduction() == [8]
    assert model(torch.randn(1, 3, 65, 40))[0].shape == (1, 24, 9, 5)
