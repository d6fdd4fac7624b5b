import pytest
import timm
import torch

SMALL = {"embed_dims": (16, 32, 40, 64), "depths": (2, 1, 1, 2)}


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("size", [(224, 224), (160, 96)])
def test_softmax_in_every_stage_is_timms_pvt_v2(randomise, size, linear):
    theirs = timm.create_model("pvt_v2_b2_li" if linear else "pvt_v2_b2", num_classes=5, **SMALL)
    theirs = randomise(theirs).double().eval()
    ours = timm.create_model("flatten_pvt_v2_b2", num_classes=5, attention="SSSS", linear=linear, **SMALL)
    ours.double().eval().load_state_dict(ours.rename_checkpoint(theirs.state_dict()))
    images = torch.randn(1, 3, *size).double()
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-9, atol=1e-9)


def test_pooled_keys_have_49_positions_in_every_stage():
    model = timm.create_model("flatten_pvt_v2_b0", linear=True, depths=(1, 1, 1, 1))
    assert {stage.blocks[0].attn.core.grid_size for stage in model.stages} == {(7, 7)}
    assert all(stage.blocks[0].mlp.relu for stage in model.stages)
    assert model(torch.randn(1, 3, 97, 65)).isfinite().all()


def test_linear_stages_take_keys_from_cells():
    model = timm.create_model("flatten_pvt_v2_test", linear_sr_ratios=(8, 4, 2, 1))
    assert [stage.blocks[0].attn.core.grid_size for stage in model.stages] == [(2, 2)] * 4
    assert model(torch.randn(1, 3, 97, 65)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linear_sr_ratios": (1, 1)}, "linear_sr_ratios must be four"),
        ({"linear_sr_ratios": (0, 1, 1, 1)}, "linear_sr_ratios must be four"),
        ({"linear_sr_ratios": (2, 1, 1, 1), "linear_window_size": 4}, "linear_window_size=4 needs"),
        ({"linear": True, "linear_window_size": 4}, "linear_window_size=4 needs"),
        ({"linear": True, "window_size": 4}, "window_size=4 needs"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("flatten_pvt_v2_test", **options)


def test_features_under_norm_are_what_the_next_stage_gets(randomise):
    model = randomise(timm.create_model("flatten_pvt_v2_test")).eval()
    images = torch.randn(1, 3, 64, 64)
    normed = model.forward_intermediates(images, norm=True, intermediates_only=True)
    raw = model.forward_intermediates(images, intermediates_only=True)
    assert torch.equal(model.stages[1](normed[0]), raw[1])
