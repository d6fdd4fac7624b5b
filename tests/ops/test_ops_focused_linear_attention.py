"""The operator in every form, against the explicit N x M matrix in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from flatten_dense.layers import FocusedLinearAttention
from flatten_dense.ops import attention_form
from flatten_dense.ops.focused_linear_attention import focused_linear_attention
from flatten_dense.ops.forms import FORMS, load_form
from flatten_dense.ops.naive import naive_feature_map, naive_linear_attention

TABLE = (2, 3)
# name: queries, (H, W) of the keys, grid of the encoding, B, C, G, power
CASES = {
    "plain": (7, TABLE, TABLE, 2, 32, 2, 3),
    "resized": (35, (5, 7), TABLE, 1, 48, 3, 3),
    "shrunk": (6, (1, 2), TABLE, 2, 16, 1, 3),
    "per_image": (15, (3, 5), (3, 5), 3, 64, 2, 3),
    "cubes_of_other_power": (9, (3, 3), TABLE, 1, 32, 2, 4),
    "long": (1201, (31, 39), (7, 5), 2, 32, 2, 3),
}


def make_inputs(case, masked=False):
    """The operator's arguments in float64, tensors first."""
    tokens, kv_size, encoding_size, batch, channels, heads, factor = CASES[case]
    torch.manual_seed(0)
    num_keys = kv_size[0] * kv_size[1]
    q, k, v = (torch.randn(batch, n, channels).double() for n in (tokens, num_keys, num_keys))
    tables = batch if case == "per_image" else 1
    encoding = torch.randn(tables, encoding_size[0] * encoding_size[1], channels).double()
    scale = torch.randn(1, 1, channels).double()
    mask = torch.rand(batch, num_keys) < 0.4 if masked else None
    return (q, k, v, scale, encoding), (encoding_size, kv_size, heads, factor, mask)


def explicit(q, k, v, scale, encoding, encoding_size, kv_size, heads, factor, mask=None):
    if encoding_size != kv_size:
        grid = encoding.transpose(1, 2).unflatten(2, encoding_size)
        encoding = F.interpolate(grid, kv_size, mode="bilinear").flatten(2).transpose(1, 2)
    phi_q, phi_k = (naive_feature_map(x, scale, factor) for x in (q, k + encoding))
    return naive_linear_attention(phi_q, phi_k, v, heads, mask)


def call(form, tensors, options):
    """In a form, or not at all if this machine does not have it."""
    if form != "plain":
        module, q, (_, _, heads, factor, _) = load_form(form), tensors[0], options
        if module is None or not module.supports(q, heads, factor):
            pytest.skip(f"no {form} form for {q.dtype} here")
    with attention_form(form):
        return focused_linear_attention(*tensors, *options)


def gradients(form, out, tensors, weight):
    with attention_form(form):
        return torch.autograd.grad(out, tensors, weight)


def assert_near(got, expected, tolerance):
    torch.testing.assert_close(
        got.double(), expected, rtol=tolerance, atol=tolerance * expected.abs().max().item(), check_dtype=False
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("form", FORMS)
def test_output_and_gradients_equal_the_explicit_form(form, dtype, tolerance, case, masked):
    tensors, options = make_inputs(case, masked)
    truth = [x.clone().requires_grad_() for x in tensors]
    own = [x.to(dtype).requires_grad_() for x in tensors]
    expected, got = explicit(*truth, *options), call(form, own, options)
    assert got.dtype == dtype
    assert_near(got, expected, tolerance)
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, truth, weight)
    for gradient, other in zip(gradients(form, got, own, weight.to(dtype)), wanted, strict=True):
        assert gradient.dtype == dtype
        assert_near(gradient, other, 10 * tolerance)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_rounds_no_more_than_inputs_and_outputs(form, dtype, tolerance, case, masked):
    tensors, options = make_inputs(case, masked)
    # The parameters stay in float32, as under autocast.
    own = [x.to(dtype) if i < 3 else x.float() for i, x in enumerate(tensors)]
    own = [x.requires_grad_() for x in own]
    truth = [x.detach().double().requires_grad_() for x in own]
    expected, got = explicit(*truth, *options), call(form, own, options)
    assert got.dtype == dtype
    assert_near(got, expected, tolerance)
    weight = torch.randn_like(expected).to(dtype)
    wanted = torch.autograd.grad(expected, truth, weight.double())
    for x, gradient, other in zip(own, gradients(form, got, own, weight), wanted, strict=True):
        assert gradient.dtype == x.dtype
        assert_near(gradient, other, tolerance)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_views_of_one_projection_are_taken_as_they_are(form, masked):
    tensors, options = make_inputs("resized", masked)
    q, k, v = torch.randn(1, 35, 3 * 48).chunk(3, dim=-1)
    scale, encoding = (x.float() for x in tensors[3:])
    got = call(form, (q, k, v, scale, encoding), options)
    torch.testing.assert_close(got, call(form, (*(x.clone() for x in (q, k, v)), scale, encoding), options))


@pytest.mark.parametrize("form", FORMS)
def test_ignored_keys_may_hold_anything(form):
    (q, k, v, *parameters), (*options, mask) = make_inputs("long", masked=True)
    tensors = [x.float().requires_grad_() for x in (q, k, v, *parameters)]
    ignored = [x.detach().clone() for x in tensors]
    for x in ignored[1:3]:
        x[mask] = float("nan")
    ignored = [x.requires_grad_() for x in ignored]
    out, same = (call(form, x, (*options, mask)) for x in (tensors, ignored))
    assert torch.equal(out, same)
    for a, b in zip(*(gradients(form, x.sum(), y, None) for x, y in ((out, tensors), (same, ignored))), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_without_keys_gives_zeros(form):
    tensors, options = make_inputs("plain")
    tensors = [x.float().requires_grad_() for x in tensors]
    mask = torch.tensor([[True] * 6, [False] * 6])
    out = call(form, tensors, (*options[:-1], mask))
    assert not out[0].any()
    assert out[1].all()
    assert all(x.isfinite().all() for x in gradients(form, out.sum(), tensors, None))


@pytest.mark.parametrize("form", FORMS[1:])
def test_autocast_lowers_no_precision_inside(form):
    tensors, options = make_inputs("resized")
    tensors = [x.float().requires_grad_() for x in tensors]
    expected = call(form, tensors, options)
    with torch.autocast("cpu", torch.bfloat16):
        got = call(form, tensors, options)
        inside = gradients(form, got.sum(), tensors, None)
    assert torch.equal(got, expected)
    torch.testing.assert_close(inside, gradients(form, expected.sum(), tensors, None))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", ["shrunk", "resized", "per_image"])
def test_gradcheck(case, masked):
    (q, k, v, scale, encoding), (*options, mask) = make_inputs(case, masked)
    # Few enough numbers to try each, and away from the corner of the ReLU.
    q, k, v = (x[..., :6] for x in (q, k, v))
    encoding, scale = encoding[..., :6].abs() * 0.1, scale[..., :6]
    q, k = (x.sign() * (x.abs() + 1) for x in (q, k))
    options[2] = 2
    tensors = [x.contiguous().requires_grad_() for x in (q, k, v, scale, encoding)]
    with attention_form("streaming"):
        assert torch.autograd.gradcheck(partial(_with_options, options, mask), tensors, fast_mode=True)


def _with_options(options, mask, *tensors):
    return focused_linear_attention(*tensors, *options, mask)


@pytest.mark.parametrize("name", ["focused_attention", "focused_attention_backward"])
def test_operator_keeps_the_rules_of_torch_library(name):
    tensors, (*options, mask) = make_inputs("resized", masked=True)
    tensors = [x.float().requires_grad_() for x in tensors]
    arguments = (*tensors, mask, *options[:-1], 3.0)
    if name == "focused_attention_backward":
        tensors = [x.detach() for x in tensors]
        out, context = torch.ops.flatten_dense.focused_attention(*tensors, *arguments[5:])
        arguments = (torch.randn_like(out), *tensors, mask, context, *arguments[6:])
    results = torch.library.opcheck(getattr(torch.ops.flatten_dense, name), arguments)
    assert set(results.values()) == {"SUCCESS"}


def test_second_derivatives_equal_those_of_the_explicit_form():
    tensors, options = make_inputs("plain")
    tensors = [x.requires_grad_() for x in tensors]
    weight = torch.randn(2, 7, 32).double()
    results = []
    for function in (focused_linear_attention, explicit):
        first = torch.autograd.grad((function(*tensors, *options) * weight).sum(), tensors, create_graph=True)
        results.append(torch.autograd.grad(sum(x.square().sum() for x in first), tensors))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-8)


def test_vmap_and_forward_mode_work():
    (q, k, v, scale, encoding), options = make_inputs("plain")
    many = torch.stack([q, 2 * q])
    outs = torch.vmap(lambda x: focused_linear_attention(x, k, v, scale, encoding, *options))(many)
    torch.testing.assert_close(outs[1], focused_linear_attention(2 * q, k, v, scale, encoding, *options))
    _, tangent = torch.func.jvp(
        lambda x: focused_linear_attention(q, k, x, scale, encoding, *options), (v,), (torch.ones_like(v),)
    )
    torch.testing.assert_close(
        tangent, focused_linear_attention(q, k, torch.ones_like(v), scale, encoding, *options)
    )  # linear in the values


def test_checkpointing_gives_the_same_gradients():
    tensors, options = make_inputs("resized", masked=True)
    tensors = [x.requires_grad_() for x in tensors]
    results = []
    for out in (
        focused_linear_attention(*tensors, *options),
        checkpoint(focused_linear_attention, *tensors, *options, use_reentrant=False),
    ):
        results.append(torch.autograd.grad(out.sum(), tensors))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("form", FORMS[1:])
def test_training_keeps_the_inputs_and_the_state_alone(form):
    tensors, options = make_inputs("long", masked=True)
    tensors = [x.float().requires_grad_() for x in tensors]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        call(form, tensors, options)
    ours = {x.data_ptr() for x in (*tensors, options[-1])}
    assert [tuple(x.shape) for x in kept if x.data_ptr() not in ours] == [(2, 2, 16, 17)]


def test_gradients_under_data_parallel_training_are_the_same(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        core = FocusedLinearAttention(32, 2, TABLE)
        qkv = [torch.randn(2, 6, 32) for _ in range(3)]
        expected = torch.autograd.grad(core(*qkv, TABLE, TABLE).sum(), list(core.parameters()))
        torch.nn.parallel.DistributedDataParallel(core)(*qkv, TABLE, TABLE).sum().backward()
        torch.testing.assert_close([p.grad for p in core.parameters()], list(expected))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_size": (3, 3)}, r"k and v must be \[2, 9, 32\]"),
        ({"v": torch.zeros(2, 5, 32)}, "k and v must be"),
        ({"k": torch.zeros(1, 6, 32), "v": torch.zeros(1, 6, 32)}, "k and v must be"),
        ({"v": torch.zeros(2, 6, 32).half()}, "torch.float16"),
        ({"scale": torch.zeros(1, 1, 16)}, "scale must be"),
        ({"num_heads": 5}, "num_heads divide 32"),
        ({"encoding": torch.zeros(1, 4, 32)}, "encoding must be"),
        ({"encoding": torch.zeros(2, 4, 32), "encoding_size": (2, 2)}, "encoding must be"),
        ({"key_padding_mask": torch.zeros(1, 6, dtype=torch.bool)}, "key_padding_mask must be"),
        ({"key_padding_mask": torch.zeros(2, 6)}, "key_padding_mask must be"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    x = torch.zeros(2, 6, 32)
    fitting = {"q": torch.zeros(2, 4, 32), "k": x, "v": x, "scale": torch.zeros(1, 1, 32), "num_heads": 2}
    fitting |= {"encoding": torch.zeros(1, 6, 32), "encoding_size": (2, 3), "kv_size": (2, 3)}
    focused_linear_attention(**fitting)
    with pytest.raises(ValueError, match=message):
        focused_linear_attention(**(fitting | changes))


def test_a_frozen_input_gets_no_gradient():
    tensors, options = make_inputs("plain")
    tensors = [x.requires_grad_(i == 2) for i, x in enumerate(tensors)]
    focused_linear_attention(*tensors, *options).sum().backward()
    assert [x.grad is not None for x in tensors] == [False, False, True, False, False]


class Core(torch.nn.Module):
    """The operator as a module, for export."""

    def forward(self, q, k, v, scale, encoding):
        return focused_linear_attention(q, k, v, scale, encoding, TABLE, (5, 7), 3)


def test_compiled_for_any_number_of_queries_it_is_one_operator():
    torch.compiler.reset()
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    tensors, _ = make_inputs("resized")
    compiled = torch.compile(Core(), backend=backend, fullgraph=True, dynamic=True)
    for count in (34, 20):
        q = tensors[0][:, :count]
        torch.testing.assert_close(compiled(q, *tensors[1:]), Core()(q, *tensors[1:]))
    assert [name for name in seen if "attention" in name] == ["flatten_dense.focused_attention"]


def test_compiled_gradients_are_the_same():
    torch.compiler.reset()
    tensors, _ = make_inputs("resized")
    tensors = [x.requires_grad_() for x in tensors]
    compiled = torch.compile(Core(), backend="aot_eager", fullgraph=True)
    got, expected = (torch.autograd.grad(core(*tensors).sum(), tensors) for core in (compiled, Core()))
    torch.testing.assert_close(got, expected)


def test_exported_it_needs_nothing_of_ours():
    tensors, _ = make_inputs("resized")
    exported = torch.export.export(Core(), tuple(tensors))
    assert not [node for node in exported.graph.nodes if "flatten_dense" in str(node.target)]
    torch.testing.assert_close(exported.module()(*tensors), Core()(*tensors))


@pytest.mark.parametrize("form", ["plain", "streaming"])
def test_counted_flops_are_those_of_the_composite(form):
    tensors, options = make_inputs("long")
    tensors = [x.float().requires_grad_() for x in tensors]
    n, m, c, d = 1201, 31 * 39, 32, 16
    with attention_form(form):
        with FlopCounterMode(display=False) as forward:
            out = focused_linear_attention(*tensors, *options)
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
    assert forward.get_total_flops() == 2 * 2 * c * (m * d + n * d + n)
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


def test_flops_are_counted_without_computing():
    tensors, options = make_inputs("resized")
    with FlopCounterMode(display=False) as counter:
        out = focused_linear_attention(*(x.to("meta") for x in tensors), *options)
    assert out.shape == (1, 35, 48)
    assert out.is_meta
    assert counter.get_total_flops() == 2 * 48 * 35 * (16 + 16 + 1)
