import pytest
import torch
from torch import nn

from flatten_dense.backbones.attention import LinearOptions, block_cores, mlp_beside
from flatten_dense.layers import CORE_NAMES, ConvMlp, FocusedLinearAttention, Mlp, WindowedAttention


@pytest.mark.parametrize(
    ("attention", "depths", "letters"),
    [
        ("LLSS", (2, 2, 6, 2), ["LL", "LL", "SSSSSS", "SS"]),
        ("LLMS2", (2, 4, 6, 1), ["LL", "LLLL", "LLSSSS", "S"]),
        ("MLMS1", (2, 1, 3, 1), ["LS", "L", "LSS", "S"]),
        ("LLMS10", (1, 1, 18, 1), ["L", "L", "L" * 10 + "S" * 8, "S"]),
        ("M0", (3,), ["SSS"]),
        ("L", (3,), ["LLL"]),
    ],
)
def test_the_papers_notation(attention, depths, letters):
    names = {"L": "focused", "S": "softmax"}
    assert block_cores(attention, depths) == [[names[letter] for letter in stage] for stage in letters]


@pytest.mark.parametrize(
    ("attention", "cores"),
    [
        ("hydra", ["hydra"] * 4),
        ("focused-relu-S-S", ["focused", "relu", "softmax", "softmax"]),
        (["L", "focused_p8", "elu", "S"], ["focused", "focused_p8", "elu", "softmax"]),
        (("softmax",), ["softmax"] * 4),
    ],
)
def test_names_for_all_stages_or_each(attention, cores):
    depths = (2, 1, 3, 1)
    assert block_cores(attention, depths) == [[core] * depth for core, depth in zip(cores, depths, strict=True)]


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("LLS", "four|4 letters"),
        ("LLSSS", "4 letters"),
        ("LLSX", "4 letters"),
        ("LLMS", "number of its linear blocks"),
        ("LLSS2", "a number but no M"),
        ("LLMS7", "7 linear blocks in a stage of 6"),
        (None, "4 letters"),
        ("hydra-relu", "4 letters.* a name for all stages or for each"),
        (["hydra"] * 5, "4 letters"),
        ("hydrant", "no attention is called 'hydrant'; expected focused, .*linear_angular"),
        (["hydra", "S", 3, "S"], "no attention is called '3'"),
        ("relu_p3", "no attention is called 'relu_p3'"),
        ("focused_p0", "no attention is called 'focused_p0'"),
    ],
)
def test_what_does_not_fit_is_refused(attention, message):
    with pytest.raises(ValueError, match=message):
        block_cores(attention, (2, 2, 6, 2))


def test_the_whole_map_by_default():
    core = LinearOptions().core("focused", 8, 2, (7, 9), block=1)
    assert isinstance(core, FocusedLinearAttention)
    assert (core.grid_size, core.focusing_factor, core.dwc.kernel_size) == ((7, 9), 3, (5, 5))


@pytest.mark.parametrize(("block", "shifted"), [(0, False), (1, True), (2, False), (3, True)])
def test_windows_of_odd_blocks_are_shifted(block, shifted):
    core = LinearOptions(window_size=4).core("focused", 8, 2, (7, 3), block)
    assert isinstance(core, WindowedAttention)
    assert core.shifted is shifted
    assert core.core.grid_size == (4, 3)  # no larger than the native map


def test_options_reach_the_core():
    core = LinearOptions(focusing_factor=4, kernel_size=3).core("focused", 8, 2, (4, 4), 0)
    assert (core.focusing_factor, core.dwc.kernel_size) == (4, (3, 3))


def test_what_wraps_the_core_lies_inside_its_windows():
    core = LinearOptions(window_size=2).core("focused", 8, 2, (4, 4), 0, around=lambda inner: nn.Sequential(inner))
    assert isinstance(core, WindowedAttention)
    assert isinstance(core.core, nn.Sequential)
    assert isinstance(core.core[0], FocusedLinearAttention)


def test_cores_know_nothing_of_each_other():
    options = LinearOptions()
    first, second = options.core("focused", 8, 2, (2, 2), 0), options.core("focused", 8, 2, (2, 2), 0)
    assert not torch.equal(first.dwc.weight, second.dwc.weight)


def test_only_enhanced_attention_has_a_convolution_in_the_mlp():
    kinds = {name: type(mlp_beside(name, 8, 16)) for name in CORE_NAMES}
    assert kinds.pop("enhanced") is ConvMlp
    assert set(kinds.values()) == {Mlp}
