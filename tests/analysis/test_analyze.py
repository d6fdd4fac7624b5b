import math

import pytest
import timm
import torch
from torch import nn

from flatten_dense.analysis import (
    analyze_attention,
    attention_weights,
    capture_attention,
    convolution_matrix,
    weights_rule,
)
from flatten_dense.analysis.statistics import effective_keys, numerical_rank, row_entropy, token_similarity
from flatten_dense.backbones import TimmBackbone
from flatten_dense.layers import CORE_NAMES

IMAGES = torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def deit():
    torch.manual_seed(0)
    return timm.create_model("flatten_deit_test")


def test_numbers_are_means_over_images_of_the_models_own_matrices(deit):
    torch.nn.init.zeros_(deit.stages[-1].blocks[0].attn.core.dwc.weight[:4])  # these channels keep the lower rank
    (head,) = analyze_attention(deit, IMAGES, blocks=[-1], heads=[1]).heads
    (call,) = capture_attention(deit.double(), IMAGES, [-1])
    weights = attention_weights(call.core, *call[2:7], heads=[1])[:, 0]
    convolved, values = numerical_rank(
        weights[:, None] + convolution_matrix(call.core, (3, 5), (3, 5), range(8, 16))[0]
    )
    assert (head.core, head.block, head.head) == ("own", "stages.3.blocks.0", 1)
    assert (head.num_queries, head.num_keys, head.head_dim, head.q_size) == (15, 15, 8, (3, 5))
    assert head.entropy == pytest.approx(row_entropy(weights).mean().item())
    assert head.effective_keys == pytest.approx(effective_keys(weights).mean().item())
    assert head.rank_attention == numerical_rank(weights)[0].double().mean()
    assert head.rank_with_dwc.min == convolved.amin(1).double().mean()
    assert head.rank_with_dwc.median == convolved.double().quantile(0.5, 1).mean()
    assert head.rank_with_dwc.max == convolved.amax(1).double().mean()
    assert head.token_similarity == pytest.approx(token_similarity(call.output[:, :, 8:16]).mean().item())
    torch.testing.assert_close(head.weights, weights[0].float())
    torch.testing.assert_close(head.singular_values, numerical_rank(weights[0])[1])
    torch.testing.assert_close(head.singular_values_with_dwc, values[0, convolved[0].argsort(stable=True)[4]])


def test_linear_attention_has_at_most_the_rank_of_its_head_and_the_convolution_restores_it(deit):
    heads = analyze_attention(deit, IMAGES, ("own", "relu", "softmax"), [0]).heads
    by_core = {head.core: head for head in heads if head.head == 0}
    assert by_core["own"].rank_attention == by_core["relu"].rank_attention == 8
    assert by_core["own"].rank_with_dwc.median == by_core["softmax"].rank_attention == 15
    assert by_core["relu"].rank_with_dwc is None
    assert by_core["own"].singular_values_with_dwc.shape == (15,)


def test_other_cores_get_the_same_inputs(deit):
    own, same = analyze_attention(deit, IMAGES, ("own", "focused"), [1], [2]).heads
    assert same.untrained == ()
    for name in ("rank_attention", "rank_with_dwc", "entropy", "effective_keys", "token_similarity"):
        assert getattr(own, name) == getattr(same, name)
    assert torch.equal(own.weights, same.weights)


def test_heads_come_block_by_block_core_by_core():
    seen = []
    model = timm.create_model("flatten_swin_test")
    analysis = analyze_attention(model, IMAGES, ("own", "relu"), [0, 3], progress=lambda *done: seen.append(done))
    listed = [(head.block, head.core, head.head) for head in analysis.heads]
    assert listed == [
        *(("stages.0.blocks.0", core, 0) for core in ("own", "relu")),
        *(("stages.2.blocks.0", core, head) for core in ("own", "relu") for head in range(2)),
    ]
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_core_with_a_head_for_each_channel_is_averaged_over_those_of_the_models_head(deit):
    (head,) = analyze_attention(deit, IMAGES[:1], ("hydra",), [0], [2]).heads
    (call,) = capture_attention(deit.double(), IMAGES[:1], [0])
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (call.q[0], call.k[0]))
    matrices = [torch.outer(q[:, c], k[:, c]) for c in range(16, 24)]
    assert head.rank_attention == 1
    assert head.entropy == pytest.approx(row_entropy(torch.stack(matrices)).mean().item())
    torch.testing.assert_close(head.weights, matrices[0].float())


@pytest.mark.parametrize("family", ["deit", "cswin"])
def test_a_hydra_model_is_compared_by_the_heads_of_the_model(family):
    options = {} if family == "cswin" else {"num_heads": 3}
    heads = analyze_attention(
        timm.create_model(f"flatten_{family}_test", attention="hydra", **options), IMAGES[:1], ("own", "relu"), [-1]
    ).heads
    like = analyze_attention(timm.create_model(f"flatten_{family}_test", **options), IMAGES[:1], blocks=[-1]).heads
    own, relu = ([head for head in heads if head.core == core] for core in ("own", "relu"))
    assert [head.head_dim for head in own] == [head.head_dim for head in relu] == [head.head_dim for head in like]
    assert all(head.rank_attention <= head.head_dim for head in relu)


def test_ranks_of_larger_blocks_are_of_some_channels():
    model = timm.create_model("flatten_pvt_test", num_heads=(1, 1, 1, 1), embed_dims=(16, 16, 16, 16))
    images = torch.randn(1, 3, 64, 80)
    first, second = analyze_attention(model, images, blocks=[0, 1]).heads
    assert (first.num_queries, first.rank_with_dwc.channels) == (320, 8)
    assert (second.num_queries, second.rank_with_dwc.channels) == (80, 16)
    (chosen,) = analyze_attention(model, images, blocks=[0], channels=[3, 15, 3]).heads
    assert chosen.rank_with_dwc.channels == 2


def test_windows_are_named_and_other_cores_stay_within_them():
    model = timm.create_model("flatten_swin_test", attention="SSSS", window_size=3)
    for head in analyze_attention(model, IMAGES, ("own", "focused"), [0], [0]).heads:
        assert head.windows == ((3, 3),)
        assert (head.weights[0, 3:20] == 0).all()


@pytest.mark.parametrize("wrap", [lambda name: timm.create_model(name), TimmBackbone])
def test_the_model_is_left_as_it_was(wrap):
    model = wrap("flatten_pvt_test").train()
    state, random = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    analyze_attention(model, IMAGES, ("own", "focused_p8"), [-1])
    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_block_of_too_many_tokens_is_refused_before_any_matrix_is_made(deit, monkeypatch):
    monkeypatch.setattr("flatten_dense.analysis.analyze.attention_weights", None)
    words = r"stages\.0\.blocks\.0 has N = 15 queries and M = 15 keys: .* max_tokens=14 .*--image-size.*--blocks"
    with pytest.raises(ValueError, match=words):
        analyze_attention(deit, IMAGES, max_tokens=14)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cores": ("own", "linformer")}, "no attention is called 'linformer'; expected focused"),
        ({"heads": [3]}, r"stages\.0\.blocks\.0 has no head 3: there are 3, 0 to 2"),
        ({"heads": [-4]}, "no head -4"),
        ({"heads": []}, "heads must hold at least one"),
        ({"blocks": []}, "blocks must hold at least one"),
        ({"channels": []}, "channels must hold at least one"),
        ({"cores": ()}, "cores must hold at least one"),
        ({"channels": [8]}, "no channel 8: there are 8, 0 to 7"),
        ({"blocks": [4]}, "no block 4: the model has 4"),
    ],
)
def test_what_is_not_there_is_refused(deit, options, words):
    with pytest.raises(ValueError, match=words):
        analyze_attention(deit, IMAGES, **options)


def test_no_images_are_refused(deit):
    with pytest.raises(ValueError, match="images must hold at least one"):
        analyze_attention(deit, IMAGES[:0])


def test_what_is_named_twice_or_from_the_end_is_measured_once(deit):
    analysis = analyze_attention(deit, IMAGES[:1], ("own", "own"), blocks=[0, -4], heads=[2, -1], channels=[-1, 7])
    assert [(head.core, head.block, head.head) for head in analysis.heads] == [("own", "stages.0.blocks.0", 2)]
    assert analysis.heads[0].rank_with_dwc.channels == 1


def test_one_core_may_be_named_without_a_list(deit):
    (head,) = analyze_attention(deit, IMAGES[:1], "relu", blocks=[0], heads=[0]).heads
    assert head.core == "relu"


def test_a_core_that_cannot_stand_in_a_block_is_refused_before_anything_is_measured():
    model, done = timm.create_model("flatten_pvt_test", linear_sr_ratios=(1, 1, 2, 1)), []
    with pytest.raises(ValueError, match=r"linear_angular cannot stand in stages\.2\.blocks\.0: .*one grid.*--cores"):
        analyze_attention(model, IMAGES, ("own", "linear_angular"), progress=lambda *counts: done.append(counts))
    assert not done


def test_weights_that_diverged_are_refused(deit):
    torch.nn.init.constant_(deit.stages[1].blocks[0].attn.q.bias, torch.inf)
    with pytest.raises(ValueError, match=r"stages\.1\.blocks\.0: FocusedLinearAttention gives numbers that are not"):
        analyze_attention(deit, IMAGES)


class Mean(nn.Module):
    """Uniform attention: ``weight`` is what its rule takes for a key's, ``added`` what the rule forgets."""

    num_heads = 1

    def __init__(self, weight=1 / 15, added=0):
        super().__init__()
        self.weight, self.added = weight, added

    def forward(self, q, k, v, *_, **named):
        return v.mean(dim=1, keepdim=True).expand_as(q) + self.added * v


@weights_rule.register
def _(core: Mean, call, heads):
    return call.q.new_full((len(call.q), 1, 15, 15), core.weight)


def test_a_plain_module_needs_a_rule_for_its_weights_alone(deit):
    deit.stages[0].blocks[0].attn.core = Mean()
    (head,) = analyze_attention(deit, IMAGES, blocks=[0]).heads
    assert (head.rank_attention, head.rank_with_dwc) == (1, None)
    assert head.entropy == pytest.approx(math.log(15))


@pytest.mark.parametrize("core", [Mean(weight=0.067), Mean(weight=math.nan), Mean(added=1e-8)])
def test_a_matrix_that_is_not_the_cores_is_refused(deit, core):
    deit.stages[0].blocks[0].attn.core = core
    with pytest.raises(RuntimeError, match="the matrix of Mean does not give what the core gives"):
        analyze_attention(deit, IMAGES, blocks=[0])


@pytest.mark.parametrize("core", CORE_NAMES)
def test_queries_keys_and_values_of_zeros_are_measured(deit, core):
    for parameter in deit.stages[0].blocks[0].attn.parameters():
        torch.nn.init.zeros_(parameter)
    (head,) = analyze_attention(deit, IMAGES, (core,), [0], [0]).heads
    assert head.token_similarity == 0
