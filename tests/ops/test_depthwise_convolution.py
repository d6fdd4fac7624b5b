import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flatten_dense.ops.depthwise_convolution import depthwise_convolution
from flatten_dense.ops.native import depthwise

C = 32
SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (7, 7), (5, 8), (6, 40), (13, 21)]
OPERATORS = [
    torch.ops.flatten_dense.depthwise_convolution.default,
    torch.ops.flatten_dense.depthwise_convolution_backward.default,
]


@pytest.fixture(params=["native", "without a compiler"])
def form(request, monkeypatch):
    """The C kernel, or what stands in for it where there is no compiler."""
    if request.param == "native" and depthwise.library() is None:
        pytest.skip("no C compiler")
    if request.param == "without a compiler":
        monkeypatch.setattr(depthwise, "library", lambda: None)


def make(size, kernels=C, k=5, channels=C, batch=2, dtype=torch.float32):
    torch.manual_seed(0)
    shapes = (batch, size[0] * size[1], channels), (kernels, 1, k, k), (kernels,)
    x, weight, bias = (torch.randn(shape) for shape in shapes)
    return x.to(dtype).requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def truth(x, size, weight, bias):
    """PyTorch's grouped convolution in float64."""
    x, weight, bias = x.double(), weight.double(), bias.double()
    repeats, padding = x.shape[2] // weight.shape[0], weight.shape[-1] // 2
    weight, bias = torch.cat([weight] * repeats), torch.cat([bias] * repeats)
    maps = x.mT.reshape(len(x), -1, *size)
    return F.conv2d(maps, weight, bias, padding=padding, groups=x.shape[2]).flatten(2).mT


def gradients(function, x, size, weight, bias):
    out = function(x, size, weight, bias)
    torch.manual_seed(1)
    direction = torch.randn(out.shape).to(x.dtype)
    return torch.autograd.grad((out * direction).sum(), (x, weight, bias))


def assert_close(got, expected, tolerance):
    assert got.shape == expected.shape
    error = (got.double() - expected.double()).abs().max().item()
    assert error <= tolerance * max(1, expected.abs().max().item())


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_forward_equals_float64(form, size, k):
    x, weight, bias = make(size, k=k)
    assert_close(depthwise_convolution(x, size, weight, bias), truth(x, size, weight, bias), 1e-6)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("size", SIZES)
def test_gradients_equal_float64(form, size, k):
    inputs = make(size, k=k)
    got, expected = (gradients(f, inputs[0], size, *inputs[1:]) for f in (depthwise_convolution, truth))
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, 1e-6)


@pytest.mark.parametrize("kernels", [8, 16, 32])
def test_heads_share_kernels(form, kernels):
    inputs = make((6, 11), kernels)
    assert_close(depthwise_convolution(inputs[0], (6, 11), *inputs[1:]), truth(inputs[0], (6, 11), *inputs[1:]), 1e-6)
    got, expected = (gradients(f, inputs[0], (6, 11), *inputs[1:]) for f in (depthwise_convolution, truth))
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, 1e-6)


def test_a_chunk_of_a_fused_projection_needs_no_copy(form):
    x, weight, bias = make((6, 11), channels=3 * C)
    for chunk in x.chunk(3, dim=-1):
        assert_close(depthwise_convolution(chunk, (6, 11), weight, bias), truth(chunk, (6, 11), weight, bias), 1e-6)


def test_any_other_strides_and_gradient_strides_are_taken(form):
    x, weight, bias = make((6, 11))
    turned = x.detach().mT.contiguous().mT.requires_grad_()
    out = depthwise_convolution(turned, (6, 11), weight, bias)
    got = torch.autograd.grad(out.sum(), (turned, weight, bias))  # a gradient with all strides zero
    expected = torch.autograd.grad(truth(x, (6, 11), weight, bias).sum(), (x, weight, bias))
    for one, other in zip((out, *got), (truth(x, (6, 11), weight, bias), *expected), strict=True):
        assert_close(one, other, 1e-6)


def test_only_the_wanted_gradients_are_made(form):
    x, weight, bias = make((6, 11))
    expected = gradients(truth, x, (6, 11), weight, bias)
    for wanted in (0, 1, 2):
        inputs = [t.detach().requires_grad_(i == wanted) for i, t in enumerate((x, weight, bias))]
        torch.manual_seed(1)
        (depthwise_convolution(inputs[0], (6, 11), *inputs[1:]) * torch.randn(x.shape)).sum().backward()
        assert [t.grad is not None for t in inputs] == [i == wanted for i in range(3)]
        assert_close(inputs[wanted].grad, expected[wanted], 1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_bfloat16_rounds_only_what_it_stores(k):
    if depthwise.library() is None:
        pytest.skip("no C compiler")
    x, weight, bias = make((13, 21), k=k, dtype=torch.bfloat16)
    out, expected = depthwise_convolution(x, (13, 21), weight, bias), truth(x, (13, 21), weight, bias)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=1e-5)
    got, exact = (gradients(f, x, (13, 21), weight, bias) for f in (depthwise_convolution, truth))
    torch.testing.assert_close(got[1].double(), exact[1].double(), rtol=1e-4, atol=1e-3)
    assert_close(got[0], exact[0], 2**-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_without_a_kernel(dtype):
    x, weight, bias = make((5, 8), kernels=9, channels=9, dtype=dtype)  # 9 channels: no vectors
    out = depthwise_convolution(x, (5, 8), weight, bias)
    assert out.dtype == dtype
    assert_close(out, truth(x, (5, 8), weight, bias), 2**-7)


def test_bfloat16_keeps_what_is_not_a_number(form):
    x, weight, bias = make((5, 8), dtype=torch.bfloat16)
    x = x.detach()
    x[0, 20, 3] = torch.nan
    out = depthwise_convolution(x, (5, 8), weight, bias)
    assert torch.equal(out.isnan(), truth(x, (5, 8), weight, bias).isnan())


def test_float16_saturates_forward_and_backward():
    x, weight, bias = make((5, 8), dtype=torch.float16)
    x = torch.full_like(x, 6e4, requires_grad=True)
    weight = torch.full_like(weight, 100).half().requires_grad_()
    out = depthwise_convolution(x, (5, 8), weight, bias)
    assert (out == 65504).all()
    small = depthwise_convolution(x, (5, 8), weight * 1e-5, bias)
    grads = torch.autograd.grad(small.float().sum() * 1e4, (x, weight))
    assert all(grad.isfinite().all() for grad in grads)


def test_autocast_does_not_round_float32():
    x, weight, bias = make((6, 11))
    for channels in (32, 9):
        inputs = x[..., :channels], (6, 11), weight[:channels], bias[:channels]
        with torch.autocast("cpu", torch.bfloat16):
            out = depthwise_convolution(*inputs)
        assert_close(out, truth(*inputs), 1e-6)


@pytest.mark.parametrize("kernels", [2, 4])
def test_gradcheck(kernels):
    x, weight, bias = make((4, 3), kernels, k=3, channels=4, batch=1)
    inputs = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda x, w, b: depthwise_convolution(x, (4, 3), w, b), inputs)
    assert torch.autograd.gradgradcheck(lambda x, w, b: depthwise_convolution(x, (4, 3), w, b), inputs)


def test_second_derivatives(form):
    def squared_gradient(function):
        inputs = make((4, 9), kernels=16)
        out = function(inputs[0], (4, 9), *inputs[1:]).square().sum()
        first = torch.autograd.grad(out, inputs, create_graph=True)
        return torch.autograd.grad(sum(g.double().square().sum() for g in first), inputs)

    for got, expected in zip(squared_gradient(depthwise_convolution), squared_gradient(truth), strict=True):
        assert_close(got, expected, 1e-5)


def test_operators_keep_the_rules_of_torch_library(form):
    x, weight, bias = make((5, 7), kernels=16)
    strided = torch.cat([x.detach()] * 2, dim=-1)[..., C:].requires_grad_()
    torch.library.opcheck(OPERATORS[0], (strided, weight, bias, 5, 7))
    x, weight, grad = x.detach(), weight.detach(), torch.randn_like(x)
    for wants in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(OPERATORS[1], (grad, x, weight, 5, 7, *wants))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(C, C, 5)

    def forward(self, maps):
        x = maps.flatten(2).mT
        return depthwise_convolution(x, maps.shape[-2:], self.convolution.weight[:, :1], self.convolution.bias)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_whole_forward_and_backward(dynamic):
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in ((5, 8), (9, 6)):
        maps = torch.randn(2, C, *size, requires_grad=True)
        got, expected = compiled(maps), layer(maps)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(
            torch.autograd.grad(got.sum(), maps), torch.autograd.grad(expected.sum(), maps), rtol=1e-5, atol=1e-5
        )


def test_exported_graphs_hold_only_operators_of_pytorch():
    layer, maps = Layer().eval(), torch.randn(2, C, 5, 8)
    program = torch.export.export(layer, (maps,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [target for target in targets if "flatten_dense" in target]
    torch.testing.assert_close(program.module()(maps), layer(maps))


def test_per_sample_gradients_and_forward_mode_see_through():
    x, weight, bias = (t.detach() for t in make((5, 8)))

    def loss(weight, x):
        return depthwise_convolution(x[None], (5, 8), weight, bias).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    torch.testing.assert_close(each[1], torch.func.grad(loss)(weight, x[1]), rtol=1e-4, atol=1e-3)
    _, tangent = torch.func.jvp(lambda x: depthwise_convolution(x, (5, 8), weight, bias), (x,), (torch.ones_like(x),))
    assert_close(tangent, truth(torch.ones_like(x), (5, 8), weight, 0 * bias), 1e-6)


@pytest.mark.parametrize("wants", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_those_that_pytorch_counts_for_the_same_convolution(device, wants):
    x, weight, bias = (t.detach().to(device) for t in make((5, 8)))
    x.requires_grad_(wants[0])
    weight.requires_grad_(wants[1])

    def count(function):
        with FlopCounterMode(display=False) as counter:
            out = function()
            forward = counter.get_total_flops()
            out.sum().backward()
        return forward, counter.get_total_flops()

    maps = x.mT.reshape(2, C, 5, 8)
    expected = count(lambda: F.conv2d(maps, weight, bias, padding=2, groups=C))
    assert count(lambda: depthwise_convolution(x, (5, 8), weight, bias)) == expected
    assert expected[0] == 2 * 2 * C * 25 * 40
