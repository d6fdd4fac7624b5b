import pytest
import torch

from flatten_dense.layers import CORE_NAMES, FocusedLinearAttention, SoftmaxAttention, make_core
from flatten_dense.layers.cores import split_core_name


@pytest.mark.parametrize("name", CORE_NAMES)
def test_every_core_has_the_same_call(name):
    core = make_core(name, 12, 3, (2, 4))
    q, k, v = torch.randn(3, 2, 8, 12)
    assert core(q, k, v, (2, 4), (2, 4), None, own_sizes=None).shape == (2, 8, 12)


@pytest.mark.parametrize(
    ("name", "power", "has_convolution"),
    [
        ("focused", 4, True),
        ("focused_p8", 8, True),
        ("focused_no_dwc", 4, False),
        ("focused_no_dwc_p1.5", 1.5, False),
    ],
)
def test_a_focused_core_takes_its_power_from_the_name_or_the_option(name, power, has_convolution):
    core = make_core(name, 12, 3, (2, 4), focusing_factor=4, kernel_size=3)
    assert isinstance(core, FocusedLinearAttention)
    assert (core.focusing_factor, core.dwc is not None) == (power, has_convolution)


def test_softmax_is_the_baseline_core():
    assert isinstance(make_core("softmax", 12, 3, (2, 4)), SoftmaxAttention)


@pytest.mark.parametrize("name", ["", "Focused", "focused_p", "focused_p-1", "softmax_p3", "focused_p0"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"no attention is called .*; expected focused, focused_no_dwc, softmax"):
        split_core_name(name)
