"""Results of the kernels against the naive form in float64: on a GPU, or by test_interpreter.py on the CPU."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.naive import naive_feature_map, naive_linear_attention
from flatten_dense.ops.triton_kernels import attention
from flatten_dense.ops.triton_kernels.attention import backward, forward
from flatten_dense.ops.triton_kernels.launching import Tiles

TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
NAMES = ("out", "dq", "dk", "dv", "dscale", "dencoding")


class Case(NamedTuple):
    channels: int = 64
    num_heads: int = 2
    queries: int = 9
    kv_size: tuple[int, int] = (7, 11)
    encoding_size: tuple[int, int] = (7, 11)
    batch: int = 1
    focusing_factor: float = 3


def make_inputs(case, dtype, device):
    """Views of one fused projection, as the layers hand them over, and float32 parameters."""
    torch.manual_seed(0)
    keys = case.kv_size[0] * case.kv_size[1]
    q = torch.randn(case.batch, case.queries, case.channels)
    k, v = torch.randn(case.batch, keys, 2 * case.channels).to(device, dtype).chunk(2, dim=-1)
    scale = torch.randn(1, 1, case.channels)
    encoding = 0.5 * torch.randn(1, case.encoding_size[0] * case.encoding_size[1], case.channels)
    return q.to(device, dtype), k, v, scale.to(device), encoding.to(device)


def naive(case, q, k, v, scale, encoding, mask):
    if case.encoding_size != case.kv_size:
        grid = encoding.transpose(1, 2).unflatten(2, case.encoding_size)
        encoding = F.interpolate(grid, case.kv_size, mode="bilinear").flatten(2).transpose(1, 2)
    q = naive_feature_map(q, scale, case.focusing_factor)
    k = naive_feature_map(k + encoding, scale, case.focusing_factor)
    return naive_linear_attention(q, k, v, case.num_heads, mask)


def run(case, inputs, mask, grad):
    sizes = (case.encoding_size, case.kv_size, case.num_heads, case.focusing_factor)
    arguments = Inputs(*inputs, mask, *sizes)
    out, context = forward(arguments)
    return context, (out, *backward(grad, arguments, context))


def check(case, dtype, device, mask=None):
    inputs = make_inputs(case, dtype, device)
    grad = torch.randn(case.batch, case.queries, case.channels).to(device, dtype)
    _, got = run(case, inputs, mask, grad)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out = naive(case, *exact, mask)
    expected = (out.detach(), *torch.autograd.grad(out, exact, grad.double()))
    for name, mine, true in zip(NAMES, got, expected, strict=True):
        error = (mine.double() - true).abs().max() / true.abs().max()
        assert error < TOLERANCE[dtype], f"{name}: {error:.1e}"
        assert mine.shape == true.shape
    assert [x.dtype for x in got] == [dtype, *(x.dtype for x in inputs)]


def random_mask(case, device):
    return torch.rand(case.batch, case.kv_size[0] * case.kv_size[1], device=device) < 0.4


@pytest.mark.parametrize(
    "case",
    [
        Case(channels=96, num_heads=3, queries=66),
        Case(channels=160, num_heads=5, queries=5, kv_size=(1, 3), encoding_size=(1, 3)),
        Case(channels=48, num_heads=2, kv_size=(2, 3), encoding_size=(2, 3)),
        Case(channels=16, num_heads=1, batch=2, kv_size=(13, 11), encoding_size=(4, 5)),
    ],
    ids=["three_heads", "fewer_tokens_than_a_tile", "head_of_24", "two_images_stretched_encoding"],
)
def test_output_and_gradients(case, device):
    check(case, torch.float32, device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_output_and_gradients_with_ignored_keys(dtype, device):
    if device.type == "cpu" and dtype == torch.bfloat16:
        pytest.skip("the interpreter has no bfloat16 products")
    case = Case(batch=2, channels=32, num_heads=1, queries=5, encoding_size=(9, 4))
    check(case, dtype, device, random_mask(case, device))


def test_products_split_into_two_narrow_numbers(monkeypatch, device):
    monkeypatch.setattr(Tiles, "precision", "split")  # as for bfloat16, which the interpreter cannot multiply
    check(Case(channels=64), torch.float16, device)


@pytest.mark.parametrize("focusing_factor", [1, 2, 2.5])
def test_other_focusing_factors(focusing_factor, device):
    check(
        Case(
            channels=32, num_heads=1, queries=9, kv_size=(2, 5), encoding_size=(2, 5), focusing_factor=focusing_factor
        ),
        torch.float32,
        device,
    )


def test_head_of_128(device):
    check(Case(channels=128, num_heads=1, queries=9, kv_size=(2, 5), encoding_size=(2, 5)), torch.float32, device)


def test_context_is_the_mean_state_and_the_mean_key(device):
    case = Case(batch=2, channels=32)
    q, k, v, scale, encoding = inputs = make_inputs(case, torch.float32, device)
    mask = random_mask(case, device)
    context, _ = run(case, inputs, mask, torch.zeros_like(q))
    phi = naive_feature_map(k.double() + encoding.double(), scale.double()).masked_fill(mask[..., None], 0)
    phi, values = (x.unflatten(2, (2, 16)).transpose(1, 2) for x in (phi, v.double()))
    values = torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)
    expected = phi.transpose(2, 3) @ values / (~mask).sum(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(context.double(), expected, rtol=1e-5, atol=1e-6)


def test_encoding_of_each_image_its_own(device):
    case = Case(batch=2, channels=32)
    q, k, v, scale, _ = make_inputs(case, torch.float32, device)
    encoding = torch.randn(2, k.shape[1], 32, device=device)
    grad = torch.randn_like(q)
    _, together = run(case, (q, k, v, scale, encoding), None, grad)
    for b in range(2):
        one = slice(b, b + 1)
        _, alone = run(case, (q[one], k[one], v[one], scale, encoding[one]), None, grad[one])
        torch.testing.assert_close(together[0][one], alone[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together[5][one], alone[5], rtol=1e-6, atol=1e-6)


def test_ignored_keys_may_hold_anything_and_get_no_gradient(device):
    case = Case(channels=32, num_heads=1)
    q, k, v, scale, encoding = inputs = make_inputs(case, torch.float32, device)
    mask = random_mask(case, device)
    _, expected = run(case, inputs, mask, q)
    k, v = (x.masked_fill(mask[..., None], float("nan")) for x in (k, v))
    _, got = run(case, (q, k, v, scale, encoding), mask, q)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert not got[2][mask].any()
    assert not got[3][mask].any()


def test_row_without_keys_gives_zeros(device):
    case = Case(channels=32, num_heads=1)
    inputs = make_inputs(case, torch.float32, device)
    mask = torch.ones(1, 77, dtype=torch.bool, device=device)
    _, got = run(case, inputs, mask, inputs[0])
    assert not any(x.any() for x in got)


def test_not_a_number_in_a_live_token_shows(device):
    case = Case(channels=32, num_heads=1)
    inputs = make_inputs(case, torch.float32, device)
    inputs[1][0, 3, 5] = float("nan")
    _, got = run(case, inputs, None, inputs[0])
    assert got[0].isnan().all()


@pytest.mark.parametrize("case", ["dead", "large", "large_signs", "dead_queries_large_keys"])
def test_half_precision_is_finite_at_extremes(case, device):
    shape = (1, 64, 32)
    torch.manual_seed(0)
    q, k, v = {
        "dead": (torch.zeros(shape), -torch.rand(shape), torch.randn(shape)),
        "large": [torch.full(shape, 6e4)] * 3,
        "large_signs": [6e4 * torch.randn(shape).sign() for _ in range(3)],
        "dead_queries_large_keys": (-torch.ones(shape), torch.full(shape, 6e4), torch.full(shape, -6e4)),
    }[case]
    parameters = (torch.zeros(1, 1, 32), torch.zeros(1, 64, 32))
    inputs = [x.to(device, torch.float16) for x in (q, k, v, *parameters)]
    sizes = Case(channels=32, num_heads=1, queries=64, kv_size=(8, 8), encoding_size=(8, 8))
    _, got = run(sizes, inputs, None, torch.ones(shape, dtype=torch.float16, device=device))
    assert [name for name, x in zip(NAMES, got, strict=True) if not x.isfinite().all()] == []


def test_gradient_that_is_an_expanded_number(device):
    case = Case(channels=32, num_heads=1)
    inputs = make_inputs(case, torch.float32, device)
    ones = torch.ones_like(inputs[0])
    _, expected = run(case, inputs, None, ones)
    _, got = run(case, inputs, None, ones[:1, :1, :1].expand_as(ones))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_the_kernel_that_tries_out_a_gpu_runs(device):
    attention._run_a_kernel(device)
