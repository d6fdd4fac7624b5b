import math

import pytest
import timm
import torch

from flatten_dense.layers import SoftmaxAttention, SwinWindowAttention


def test_softmax_stages_take_keys_from_cells_as_in_pvt():
    model = timm.create_model("flatten_pvt_test", attention="SSSS")
    assert [stage.blocks[0].attn.sr_ratio for stage in model.stages] == [8, 4, 2, 1]
    assert all(isinstance(stage.blocks[0].attn.core, SoftmaxAttention) for stage in model.stages)


def test_parameters_of_the_softmax_originals():
    """13.229M and 24.486M with a class token, which PVT has and this has not, and a final norm."""
    for variant, published in (("flatten_pvt_tiny", 13.229), ("flatten_pvt_small", 24.486)):
        with torch.device("meta"):
            model = timm.create_model(variant, attention="SSSS")
        with_token = sum(p.numel() for p in model.parameters()) + 2 * 512 + 2 * 512
        assert with_token / 1e6 == pytest.approx(published, abs=0.001)


def test_softmax_windows_take_the_place_of_cells():
    model = timm.create_model("flatten_pvt_test", attention="SSSS", window_size=7)
    attention = model.stages[0].blocks[0].attn
    assert isinstance(attention.core, SwinWindowAttention)
    assert attention.sr_ratio == 1


@pytest.mark.parametrize("linear_sr_ratios", [(1, 1), (0, 1, 1, 1)])
def test_ratios_that_do_not_fit_four_stages_are_refused(linear_sr_ratios):
    with pytest.raises(ValueError, match="linear_sr_ratios must be four integers"):
        timm.create_model("flatten_pvt_test", linear_sr_ratios=linear_sr_ratios)


def test_the_norm_that_is_never_called_is_useless():
    model = timm.create_model("flatten_pvt_test")
    assert "never calls" in model.why_useless("norm.weight")
    assert "never calls" in model.why_useless("norm.bias")
    assert model.why_useless("stages.0.patch_embed.norm.weight") is None


def test_the_class_token_of_the_softmax_original_is_left_out():
    model = timm.create_model("flatten_pvt_test", attention="SSSS")
    table = torch.randn(1, 5, 32)
    renamed = model.rename_checkpoint({"cls_token": torch.zeros(1, 1, 32), "pos_embed4": table})
    assert torch.equal(renamed["stages.3.pos_embed"], table[:, 1:])
    assert "class token" in model.why_useless("cls_token")


def test_nothing_is_exempt_from_weight_decay_by_name():
    assert timm.create_model("flatten_pvt_test").no_weight_decay() == set()


def test_initialisation():
    model = timm.create_model("flatten_pvt_test")
    core = model.stages[3].blocks[0].attn.core
    assert not core.scale.any()
    assert not core.positional_encoding.any()
    assert model.stages[0].pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.stages[3].blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert core.dwc.weight.std().item() == pytest.approx(math.sqrt(2 / 25), rel=0.2)
    assert not core.dwc.bias.any()
