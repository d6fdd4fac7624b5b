import pytest
import timm
import torch
from torch import nn

from flatten_dense.profiling.complexity import count_macs, count_parameters

IMAGE = (1, 3, 224, 224)


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "macs"),
    [
        ("flatten_swin_tiny", {}, 4_483_341_312),
        ("flatten_pvt_tiny", {"attention": "LLSS"}, 2_007_501_824),
        ("flatten_cswin_tiny", {}, 4_324_253_184),
    ],
)
def test_macs_are_those_of_the_official_models(name, options, macs):
    assert count_macs(on_meta(name, **options), IMAGE) == macs


def test_softmax_attention_is_counted():
    n, c = 14 * 14, 192
    projections_and_mlp, products = (4 + 2 * 4) * n * c * c, 2 * n * n * c
    by_hand = 3 * 16 * 16 * c * n + 12 * (projections_and_mlp + products) + c * 1000
    assert count_macs(on_meta("flatten_deit_tiny", attention="S"), IMAGE) == by_hand


@pytest.mark.parametrize("attention", ["LLLL", "SSSS"])
def test_the_device_does_not_matter(attention):
    options = {"attention": attention}
    shape = (2, 3, 45, 70)
    on_cpu = timm.create_model("flatten_swin_test", **options)
    assert count_macs(on_cpu, shape) == count_macs(on_meta("flatten_swin_test", **options), shape)


def test_macs_of_a_grouped_convolution():
    assert count_macs(nn.Conv2d(8, 12, 3, groups=4, bias=False), (1, 8, 10, 7)) == (8 // 4) * 9 * 12 * 8 * 5


def test_several_inputs():
    queries, keys, c = 5, 7, 4
    projections, products = (2 * queries + 2 * keys) * c * c, 2 * queries * keys * c
    attention = nn.MultiheadAttention(c, num_heads=2)
    assert count_macs(attention, (queries, 1, c), (keys, 1, c), (keys, 1, c)) == projections + products


def test_inputs_follow_the_precision_of_the_module():
    assert count_macs(nn.Linear(3, 4).bfloat16(), (2, 3)) == 2 * 3 * 4


def test_the_module_is_left_as_it_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model, (1, 3, 1, 1))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 4)
    assert count_parameters(nn.Sequential(layer, layer)) == 3 * 4 + 4
