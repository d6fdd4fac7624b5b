import pytest
import timm

from flatten_dense.backbones.weights.block_parts import BlockParts

BLOCK = "stages.0.blocks.0"
SCALE, CONVOLUTION, BIAS = f"{BLOCK}.attn.core.scale", f"{BLOCK}.attn.core.dwc.bias", f"{BLOCK}.mlp.dwconv.bias"


def parts(given, here):
    """Of a file with one attention, for a model with another."""
    source, model = (timm.create_model("flatten_deit_test", attention=name, depth=1) for name in (given, here))
    return BlockParts(source.state_dict(), model)


@pytest.mark.parametrize(("here", "differs"), [("focused", False), ("focused_p8", False), ("relu", True), ("S", True)])
def test_attentions_differ_by_their_parts(here, differs):
    assert parts("focused", here).differ(SCALE) is differs


def test_projections_and_mlps_never_differ():
    assert not any(parts("focused", "relu").differ(f"{BLOCK}.{name}") for name in ("attn.q.weight", "mlp.fc1.weight"))


def test_a_dropped_part_is_said_to_belong_to_the_attention_of_the_file():
    assert parts("focused", "focused_no_dwc").why_dropped(CONVOLUTION) == (
        "belongs to linear attention; this block has linear attention without a convolution"
    )


def test_a_fresh_part_is_explained_by_the_attention_of_the_file():
    assert parts("hydra", "focused").why_fresh(SCALE) == "the file's block has attention without parts of its own"


def test_the_convolution_of_an_mlp_may_come_and_go_with_enhanced_attention():
    assert parts("enhanced", "relu").why_dropped(BIAS) == "this block's MLP has no convolution"
    assert parts("focused", "enhanced").why_fresh(BIAS) == "the file has none"


def test_what_the_same_attention_lacks_is_not_explained():
    assert parts("focused", "focused").why_fresh(SCALE) is None
    assert parts("focused", "focused").why_fresh(BIAS) is None
