import math

import pytest
import timm
import torch

from flatten_dense.backbones.cswin import CrossShapedAttention
from flatten_dense.layers import FocusedLinearAttention, LocallyEnhancedAttention, SoftmaxAttention, WindowedAttention


def test_vertical_stripes_have_the_first_half_of_the_channels():
    """The official order: the first branch spans the height."""
    attention = CrossShapedAttention(8, 2, 2)
    q, k, v = torch.randn(3, 1, 30, 8)
    size = (5, 6)
    first, second = attention.cores
    assert (first.window_size, second.window_size) == ((None, 2), (2, None))
    got = attention(q, k, v, size, size)
    torch.testing.assert_close(got[..., :4], first(q[..., :4], k[..., :4], v[..., :4], size, size))
    torch.testing.assert_close(got[..., 4:], second(q[..., 4:], k[..., 4:], v[..., 4:], size, size))


def test_an_odd_number_of_heads_is_refused():
    with pytest.raises(ValueError, match="even number of heads, got num_heads=3"):
        CrossShapedAttention(12, 3, 2)


def test_linear_blocks_keep_the_locally_enhanced_encoding():
    core = timm.create_model("flatten_cswin_test").stages[0].blocks[0].attn.core
    assert isinstance(core, LocallyEnhancedAttention)
    assert isinstance(core.core, FocusedLinearAttention)
    assert core.core.num_heads == 2


def test_linear_windows_hold_the_encoding():
    core = timm.create_model("flatten_cswin_test", linear_window_size=4).stages[0].blocks[0].attn.core
    assert isinstance(core, WindowedAttention)
    assert isinstance(core.core, LocallyEnhancedAttention)


def test_softmax_blocks_of_the_last_stage_see_the_whole_map():
    core = timm.create_model("flatten_cswin_test").stages[3].blocks[0].attn.core
    assert isinstance(core, LocallyEnhancedAttention)
    assert isinstance(core.core, SoftmaxAttention)


@pytest.mark.parametrize(("window_size", "widths"), [(5, [5, 5, 5]), ((1, 2, 3, 9), [1, 2, 3])])
def test_stripe_widths(window_size, widths):
    model = timm.create_model("flatten_cswin_test", attention="SSSS", window_size=window_size)
    assert [stage.blocks[0].attn.core.cores[0].window_size[1] for stage in model.stages[:3]] == widths


def test_widths_that_do_not_fit_the_stages_are_refused():
    with pytest.raises(ValueError, match=r"window_size must be one width or one per stage, got \(1, 2\)"):
        timm.create_model("flatten_cswin_test", window_size=(1, 2))


@pytest.mark.parametrize(
    ("variant", "depths", "millions"),
    [
        ("flatten_cswin_tiny", (1, 2, 21, 1), 23),
        ("flatten_cswin_small", (2, 4, 32, 2), 35),
        ("flatten_cswin_base", (2, 4, 32, 2), 78),
    ],
)
def test_parameters_of_the_softmax_originals(variant, depths, millions):
    """CSWin's own depths: FLatten's variants of T and B move blocks to the early stages. CSWin's paper rounds up."""
    with torch.device("meta"):
        model = timm.create_model(variant, attention="SSSS", depths=depths)
    assert math.ceil(sum(p.numel() for p in model.parameters()) / 1e6) == millions
