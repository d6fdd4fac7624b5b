import math

import pytest
import torch
from torch import nn

from flatten_dense.backbones.initialization import init_linear, init_pvt


def linear():
    return nn.Linear(64, 128)


@pytest.mark.parametrize("init", [init_linear, init_pvt])
def test_linear_layers_are_normal_and_unbiased(init):
    layer = linear()
    init(layer)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not layer.bias.any()


def test_a_linear_layer_needs_no_bias():
    layer = nn.Linear(64, 128, bias=False)
    init_linear(layer)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_convolutions_of_swin_keep_torchs_own():
    convolution = nn.Conv2d(3, 8, 3)
    before = convolution.weight.clone()
    init_linear(convolution)
    assert torch.equal(convolution.weight, before)


@pytest.mark.parametrize("groups", [1, 32])
def test_convolutions_of_pvt_are_normal_by_their_fan_out(groups):
    convolution = nn.Conv2d(32, 64, 3, groups=groups)
    init_pvt(convolution)
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64 / groups)), rel=0.1)
    assert not convolution.bias.any()


@pytest.mark.parametrize("name", ["pos_embed", "relative_position_bias_table"])
def test_tables_of_positions_are_normal(name):
    module = nn.Module()
    module.register_parameter(name, nn.Parameter(torch.zeros(64, 64)))
    init_linear(module)
    assert getattr(module, name).std().item() == pytest.approx(0.02, rel=0.1)
