import timm
import torch

from flatten_dense.layers import FocusedLinearAttention, SwinWindowAttention, WindowedAttention


def test_softmax_in_every_stage_is_timms_swin(randomise):
    options = {"depths": (2, 2, 2, 1), "embed_dim": 24}
    theirs = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **options)
    theirs = randomise(theirs).double().eval()
    ours = timm.create_model("flatten_swin_tiny", num_classes=5, attention="SSSS", **options).double().eval()
    state = ours.rename_checkpoint(theirs.state_dict())
    ours.load_state_dict({name: tensor for name, tensor in state.items() if ours.why_useless(name) is None})
    images = torch.randn(1, 3, 224, 224).double()
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-9, atol=1e-9)


def test_softmax_at_another_size_is_timms_swin_of_that_size(randomise):
    """Sides of whole windows: elsewhere timm attends to its padding, which is never a key here."""
    options = {"depths": (2, 2, 2, 2), "embed_dim": 24}
    size = (224, 448)
    theirs = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, img_size=size, **options)
    theirs = randomise(theirs).double().eval()
    ours = timm.create_model("flatten_swin_tiny", num_classes=5, attention="SSSS", **options).double().eval()
    state = ours.rename_checkpoint(theirs.state_dict())
    ours.load_state_dict({name: tensor for name, tensor in state.items() if ours.why_useless(name) is None})
    images = torch.randn(1, 3, *size).double()
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-9, atol=1e-9)


def test_linear_stages_see_the_whole_map_and_softmax_stages_shifted_windows():
    model = timm.create_model("flatten_swin_test")
    cores = [[block.attn.core for block in stage.blocks] for stage in model.stages]
    assert [type(core) for core in cores[0]] == [FocusedLinearAttention] * 2
    assert [type(core) for core in cores[2]] == [SwinWindowAttention] * 2
    assert [core.shifted for core in cores[2]] == [False, True]
    assert cores[2][0].window_size == (3, 3)


def test_linear_windows():
    model = timm.create_model("flatten_swin_test", linear_window_size=8)
    cores = [block.attn.core for block in model.stages[0].blocks]
    assert [(type(core), core.window_size, core.shifted) for core in cores] == [
        (WindowedAttention, (8, 8), False),
        (WindowedAttention, (8, 8), True),
    ]
    assert cores[0].core.grid_size == (8, 8)


def test_a_mixed_stage_starts_linear():
    model = timm.create_model("flatten_swin_test", attention="LLMS1")
    assert [type(block.attn.core) for block in model.stages[2].blocks] == [FocusedLinearAttention, SwinWindowAttention]


def test_official_names_reach_the_core_inside_its_windows():
    model = timm.create_model("flatten_swin_test", linear_window_size=8)
    renamed = model.rename_checkpoint({"layers.0.blocks.1.attn.scale": torch.ones(1)})
    assert set(renamed) == {"stages.0.blocks.1.attn.core.core.scale"}


def test_merging_belongs_to_the_stage_before_in_official_files_and_to_the_stage_after_in_timms():
    model = timm.create_model("flatten_swin_test")
    official = {f"layers.{i}.downsample.norm.weight": i for i in range(3)}
    of_timm = {f"layers.{i}.downsample.norm.weight": i for i in range(1, 4)}
    assert model.rename_checkpoint(official) == {f"stages.{i + 1}.patch_embed.norm.weight": i for i in range(3)}
    assert model.rename_checkpoint(of_timm) == {f"stages.{i}.patch_embed.norm.weight": i for i in range(1, 4)}


def test_computed_buffers_are_useless():
    model = timm.create_model("flatten_swin_test")
    assert "computed" in model.why_useless("stages.2.blocks.1.attn_mask")
    assert "computed" in model.why_useless("stages.2.blocks.1.attn.relative_position_index")
    assert model.why_useless("stages.2.blocks.1.attn.core.relative_position_bias_table") is None


def test_bias_tables_are_exempt_from_weight_decay():
    model = timm.create_model("flatten_swin_test", attention="LLSS")
    assert len(model.no_weight_decay()) == 4
    assert all(name.endswith("relative_position_bias_table") for name in model.no_weight_decay())


def test_initialisation():
    model = timm.create_model("flatten_swin_tiny", depths=(1, 1, 1, 1))
    core = model.stages[0].blocks[0].attn.core
    assert not core.scale.any()
    assert not core.positional_encoding.any()
    assert 0.015 < model.stages[2].blocks[0].attn.core.relative_position_bias_table.std() < 0.025
    assert 0.015 < model.stages[0].blocks[0].mlp.fc1.weight.std() < 0.025
    assert not model.stages[0].blocks[0].mlp.fc1.bias.any()
