import pytest
import timm
import torch

from flatten_dense.analysis import capture_attention
from flatten_dense.analysis.replacement import replace_core, windows_of
from flatten_dense.backbones.cswin import CrossShapedAttention, lepe_softmax_core
from flatten_dense.layers import (
    CORE_NAMES,
    FocusedLinearAttention,
    LocallyEnhancedAttention,
    SoftmaxAttention,
    SwinWindowAttention,
    WindowedAttention,
    make_core,
)

C, G = 12, 3


def test_parameters_of_the_same_name_and_shape_are_the_models():
    own = make_core("focused", C, G, (4, 4), kernel_size=3)
    with torch.no_grad():
        own.scale.fill_(0.7)
    core, untrained = replace_core(own, "focused_p1", C, G, (2, 3))
    assert (core.focusing_factor, core.grid_size, untrained) == (1, (4, 4), ())
    assert all(torch.equal(tensor, core.state_dict()[name].float()) for name, tensor in own.state_dict().items())
    assert core.scale.dtype == torch.float64


def test_what_the_model_does_not_have_starts_as_in_a_new_one_and_is_named():
    random = torch.get_rng_state()
    core, untrained = replace_core(SoftmaxAttention(C, G), "focused", C, G, (2, 3))
    assert untrained == ("positional_encoding", "scale", "dwc.weight", "dwc.bias")
    assert core.grid_size == (2, 3)
    assert torch.equal(core.dwc.weight, replace_core(SoftmaxAttention(C, G), "focused", C, G, (2, 3))[0].dwc.weight)
    assert torch.equal(torch.get_rng_state(), random)


def test_other_cores_attend_within_the_same_windows():
    core, _ = replace_core(SwinWindowAttention(SoftmaxAttention(C, G), G, 3, shifted=True), "focused", C, G, (5, 7))
    assert type(core) is WindowedAttention
    assert (core.window_size, core.shifted, core.core.grid_size) == ((3, 3), True, (3, 3))


def test_softmax_within_swins_windows_has_their_bias():
    own = SwinWindowAttention(SoftmaxAttention(C, G), G, 3)
    torch.nn.init.normal_(own.relative_position_bias_table)
    core, untrained = replace_core(own, "softmax", C, G, (5, 7))
    assert torch.equal(core.relative_position_bias_table.float(), own.relative_position_bias_table)
    assert untrained == ()


def test_other_cores_have_the_convolution_around_the_models():
    core, untrained = replace_core(lepe_softmax_core(C, G), "relu", C, G, (5, 7))
    assert isinstance(core, LocallyEnhancedAttention)
    assert untrained == ()


def test_other_cores_attend_in_both_directions():
    core, untrained = replace_core(CrossShapedAttention(C, 2, 2), "focused_no_dwc", C, 2, (5, 7))
    assert untrained == ("positional_encoding", "scale")
    assert [half.window_size for half in core.cores] == [(None, 2), (2, None)]
    assert all(isinstance(half.core.core, FocusedLinearAttention) for half in core.cores)


@pytest.mark.parametrize("name", CORE_NAMES)
@pytest.mark.parametrize("family", ["deit", "pvt", "pvt_v2", "swin", "cswin"])
def test_every_core_can_stand_in_for_every_familys(family, name):
    model = timm.create_model(f"flatten_{family}_test")
    for call in capture_attention(model, torch.randn(1, 3, 52, 74)):
        core, _ = replace_core(call.core, name, call.q.shape[2], 2 - call.q.shape[2] % 2, call.kv_size)
        assert core(*(x.double() for x in call[2:5]), *call[5:7]).isfinite().all()


@pytest.mark.parametrize(
    ("core", "windows"),
    [
        (SoftmaxAttention(C, G), ()),
        (WindowedAttention(SoftmaxAttention(C, G), (3, 2)), ((3, 2),)),
        (SwinWindowAttention(SoftmaxAttention(C, G), G, 9), ()),
        (LocallyEnhancedAttention(WindowedAttention(SoftmaxAttention(C, G), (3, 9)), C), ((3, 7),)),
        (CrossShapedAttention(C, 2, 2), ((5, 2), (2, 7))),
    ],
)
def test_windows_are_those_that_the_map_is_cut_into(core, windows):
    assert windows_of(core, (5, 7)) == windows
