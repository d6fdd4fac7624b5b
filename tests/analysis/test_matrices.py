import pytest
import timm
import torch
from torch import nn

import flatten_dense.backbones  # noqa: F401  registers the models
from flatten_dense.analysis import attention_weights, capture_attention, weights_rule
from flatten_dense.backbones.cswin import CrossShapedAttention
from flatten_dense.layers import (
    CORE_NAMES,
    LocallyEnhancedAttention,
    SoftmaxAttention,
    SwinWindowAttention,
    WindowedAttention,
    make_core,
)

C, G = 12, 3
NAMES = (*CORE_NAMES, "focused_p32", "focused_no_dwc_p1")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def qkv(num_queries, num_keys, dim=C):
    return [torch.randn(2, number, dim, dtype=torch.float64) for number in (num_queries, num_keys, num_keys)]


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_matrices_give_what_a_core_gives(name, through_matrices, randomise):
    core, size = randomise(make_core(name, C, G, (4, 4))), (5, 3)
    call = *qkv(15, 15), size, size
    assert_same(through_matrices(core, *call), core(*call))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "linear_angular"])
def test_matrices_give_what_a_core_gives_for_a_coarser_grid_of_keys(name, through_matrices, randomise):
    core = randomise(make_core(name, C, G, (3, 2)))
    call = *qkv(35, 6), (5, 7), (2, 3)
    assert_same(through_matrices(core, *call), core(*call))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shifted", [False, True])
def test_matrices_give_what_a_core_gives_within_padded_windows(name, shifted, through_matrices, randomise):
    core = LocallyEnhancedAttention(make_core(name, C, G, (3, 3)), C)
    windows, size = randomise(WindowedAttention(core, (3, 2), shifted)), (5, 7)
    call = *qkv(35, 35), size, size
    assert_same(through_matrices(windows, *call), windows(*call))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (6, 6), (2, 7)])
def test_matrices_give_what_swins_windows_give(size, shifted, through_matrices, randomise):
    windows = randomise(SwinWindowAttention(SoftmaxAttention(C, G), G, 3, shifted))
    number = size[0] * size[1]
    call = *qkv(number, number), size, size
    assert_same(through_matrices(windows, *call), windows(*call))


def test_matrices_give_what_cross_shaped_windows_give(through_matrices, randomise):
    cross, size = randomise(CrossShapedAttention(16, 4, 3)), (5, 7)
    call = *qkv(35, 35, 16), size, size
    assert_same(through_matrices(cross, *call), cross(*call))


@pytest.mark.parametrize("family", ["deit", "pvt", "pvt_v2", "swin", "cswin"])
@pytest.mark.parametrize("attention", ["default", *(name for name in CORE_NAMES if name != "focused")])
def test_matrices_give_what_every_family_gives(family, attention, through_matrices, randomise):
    options = {} if attention == "default" else {"attention": attention}
    model = randomise(timm.create_model(f"flatten_{family}_test", **options))
    for call in capture_attention(model, torch.randn(1, 3, 52, 74)):
        assert_same(through_matrices(call.core, *call[2:7]), call.output)


@pytest.mark.parametrize("options", [{"linear_window_size": 3}, {"linear_sr_ratios": (4, 2, 2, 1)}, {"linear": True}])
def test_matrices_give_what_other_forms_of_blocks_give(options, through_matrices, randomise):
    family = "cswin" if "linear_window_size" in options else "pvt_v2"
    model = randomise(timm.create_model(f"flatten_{family}_test", **options))
    for call in capture_attention(model, torch.randn(1, 3, 52, 74)):
        assert_same(through_matrices(call.core, *call[2:7]), call.output)


@pytest.mark.parametrize("name", NAMES)
def test_matrices_of_some_heads_are_those_of_all(name, randomise):
    core = WindowedAttention(randomise(make_core(name, C, G, (3, 3))), (3, 2))
    call = *qkv(35, 35), (5, 7), (5, 7)
    assert_same(attention_weights(core, *call, heads=[1, 2]), attention_weights(core, *call)[:, [1, 2]])


def test_matrices_of_some_heads_of_both_directions_are_those_of_all(randomise):
    cross = randomise(CrossShapedAttention(16, 4, 3))
    call = *qkv(35, 35, 16), (5, 7), (5, 7)
    assert_same(attention_weights(cross, *call, heads=[1, 2]), attention_weights(cross, *call)[:, [1, 2]])


def test_weights_outside_a_window_are_zero_and_rows_inside_sum_to_one():
    windows = WindowedAttention(SoftmaxAttention(C, G), (1, None))
    weights = attention_weights(windows, *qkv(6, 6), (2, 3), (2, 3))
    assert (weights[..., :3, 3:] == 0).all()
    torch.testing.assert_close(weights[..., :3, :3].sum(-1), torch.ones(2, G, 3, dtype=torch.float64))


def test_weights_carry_no_gradient():
    core = make_core("focused", C, G, (2, 3)).double()
    assert not attention_weights(core, *qkv(6, 6), (2, 3), (2, 3)).requires_grad


class Mean(nn.Module):
    num_heads = 1


def test_an_unknown_core_is_refused_with_what_to_register():
    with pytest.raises(ValueError, match=r"no matrix is known for Mean: put @weights_rule\.register .*`core: Mean`"):
        attention_weights(Mean(), *qkv(6, 6), (2, 3), (2, 3))


def test_a_core_without_heads_is_refused():
    with pytest.raises(ValueError, match="Linear has no attribute num_heads"):
        attention_weights(nn.Linear(1, 1), *qkv(6, 6), (2, 3), (2, 3))


def test_a_registered_rule_is_used():
    class Uniform(Mean):
        pass

    @weights_rule.register
    def _(core: Uniform, call, heads):
        return torch.full((2, 1, 6, 6), 1 / 6)

    assert attention_weights(Uniform(), *qkv(6, 6), (2, 3), (2, 3)).sum() == pytest.approx(12)
