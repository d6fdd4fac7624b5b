import pytest
import timm
import torch
from torch import nn

from flatten_dense.analysis import capture_attention
from flatten_dense.backbones import TimmBackbone

IMAGES = torch.zeros(2, 3, 64, 96)


@pytest.fixture
def swin():
    torch.manual_seed(0)
    return timm.create_model("flatten_swin_test")


def names(captured):
    return [call.name for call in captured]


def test_blocks_come_in_order_with_what_their_cores_get_and_give(swin):
    captured = capture_attention(swin, torch.randn(2, 3, 64, 96))
    assert names(captured) == [
        f"stages.{i}.blocks.{j}" for i, j in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1))
    ]
    first = captured[0]
    assert first.q.shape == first.k.shape == first.v.shape == first.output.shape == (2, 384, 8)
    assert first.q_size == first.kv_size == (16, 24)
    with torch.no_grad():
        for call in captured:
            assert call.core is swin.get_submodule(call.name).attn.core
            torch.testing.assert_close(call.core(*call[2:7]), call.output)


def test_keys_of_a_coarser_grid_have_its_size():
    model = timm.create_model("flatten_pvt_v2_test", linear_sr_ratios=(4, 2, 1, 1))
    first = capture_attention(model, IMAGES, [0])[0]
    assert (first.q_size, first.kv_size, first.k.shape[1]) == ((16, 24), (4, 6), 24)


def test_chosen_blocks_come_once_and_in_the_order_of_the_model(swin):
    assert names(capture_attention(swin, IMAGES, [-1, 2, 6])) == ["stages.1.blocks.0", "stages.3.blocks.1"]


def test_a_backbone_has_the_names_of_its_model(swin):
    backbone = TimmBackbone("flatten_swin_test")
    assert names(capture_attention(backbone, IMAGES)) == names(capture_attention(swin, IMAGES))


def test_of_a_task_the_backbone_runs(make_detector):
    task = make_detector()
    assert names(capture_attention(task, IMAGES)) == names(capture_attention(task.backbone, IMAGES))


def test_blocks_of_ones_own_are_found():
    class Own(nn.Module):
        def __init__(self, stage):
            super().__init__()
            self.trunk = stage

        def forward(self, x):
            return self.trunk(x)

    stage = timm.create_model("flatten_pvt_test").stages[0]
    assert names(capture_attention(Own(stage), IMAGES))[0] == "trunk.blocks.0"


def test_the_model_is_left_as_it_was(swin):
    swin.train()
    swin.stages[0].eval()
    modes = [module.training for module in swin.modules()]
    state, random = {name: tensor.clone() for name, tensor in swin.state_dict().items()}, torch.get_rng_state()
    captured = capture_attention(swin, IMAGES)
    assert [module.training for module in swin.modules()] == modes
    assert not any(module._forward_hooks for module in swin.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in swin.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert not any(call.q.requires_grad or call.output.requires_grad for call in captured)


def test_hooks_go_and_modes_return_where_the_model_fails(swin):
    swin.train()
    with pytest.raises(ValueError, match="at least 32 pixels"):
        capture_attention(swin, IMAGES[..., :8])
    assert swin.training
    assert not any(module._forward_hooks for module in swin.modules())


def test_images_are_brought_to_the_models_type(swin):
    assert capture_attention(swin.double(), IMAGES, [0])[0].output.dtype == torch.float64


def test_a_compiled_model_is_looked_into():
    compiled = torch.compile(timm.create_model("flatten_deit_test", depth=1).eval(), backend="eager")
    with torch.no_grad():
        compiled(IMAGES)
    assert len(capture_attention(compiled, IMAGES)) == 1


def test_a_model_without_such_blocks_is_refused_with_where_to_find_others():
    with pytest.raises(ValueError, match=r"Conv2d has no block with an attention core .* `flatten-dense models`"):
        capture_attention(torch.nn.Conv2d(3, 4, 3), IMAGES)


@pytest.mark.parametrize("block", [7, -8])
def test_a_block_that_is_not_there_is_refused_with_how_many_are(swin, block):
    with pytest.raises(ValueError, match=f"no block {block}: the model has 7, 0 to 6 or -7 to -1"):
        capture_attention(swin, IMAGES, [0, block])
