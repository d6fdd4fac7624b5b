import pytest
import timm
import torch
from benchmarks import reference
from torch import nn

import flatten_dense.backbones  # noqa: F401 - registers them
from flatten_dense.layers import FocusedLinearAttention, FusedAttention, TokenGrid

MODELS = [
    ("flatten_pvt_test", {}),
    ("flatten_pvt_test", {"linear_sr_ratios": (4, 2, 1, 1)}),
    ("flatten_pvt_v2_test", {}),
    ("flatten_pvt_v2_test", {"linear": True}),
    ("flatten_swin_test", {}),
    ("flatten_deit_test", {}),
    ("flatten_cswin_test", {}),
]


def with_random_parameters(module):
    """So that encodings and scales, zero at first, matter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3, generator=generator)
    return module.double().eval()


@pytest.mark.parametrize(("name", "options"), MODELS, ids=[f"{name}-{list(options)}" for name, options in MODELS])
@pytest.mark.parametrize("size", [(64, 64), (50, 83)], ids=["native", "odd"])
def test_a_model_gives_the_same_in_the_reference_order(name, options, size):
    model = with_random_parameters(timm.create_model(name, **options))
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(reference.ReferenceBackbone(model)(images), model(images), rtol=1e-9, atol=1e-9)


def test_gradients_of_the_module_are_the_same_in_the_reference_order():
    module = with_random_parameters(FusedAttention(12, FocusedLinearAttention(12, 3, (4, 4))))
    x = torch.randn(1, 35, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    reference.ReferenceAttention(module)(x, (5, 7)).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()
    module(x, TokenGrid((5, 7))).square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(expected[name], parameter.grad, rtol=1e-9, atol=1e-9)


def test_weights_are_shared():
    model = timm.create_model("flatten_pvt_test")
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in reference.ReferenceBackbone(model).parameters()} == own


def test_nothing_of_ours_runs_inside_but_softmax_cores():
    modules = reference.ReferenceBackbone(timm.create_model("flatten_cswin_test", attention="LLLL")).modules()
    homes = {type(module).__module__.partition(".")[0] for module in modules}
    assert homes == {"torch", "benchmarks"}


def test_windows_are_refused():
    model = timm.create_model("flatten_pvt_test", linear_window_size=4)
    with pytest.raises(ValueError, match="no linear attention within windows"):
        reference.ReferenceBackbone(model)
