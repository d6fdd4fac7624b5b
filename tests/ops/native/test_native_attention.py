import pytest
import torch

from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.naive import naive_feature_map
from flatten_dense.ops.native import attention
from flatten_dense.ops.native.arguments import Encoding, inverse_scale
from flatten_dense.ops.native.build import library
from flatten_dense.ops.streaming import attention as streaming
from flatten_dense.ops.table_resizing import resize_table

# Outputs and gradients against the explicit matrix: tests/ops/test_ops_focused_linear_attention.py, form "native".
pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler")
C, G, D, SIZE, TABLE = 32, 2, 16, (5, 9), (3, 4)


@pytest.fixture
def case():
    torch.manual_seed(0)
    k, v, scale = torch.randn(2, 45, C), torch.randn(2, 45, C), torch.randn(1, 1, C)
    return k, v, scale, torch.randn(1, 12, C)


def expected_sums(k, v, scale, table):
    phi = naive_feature_map(k.double() + resize_table(table.double(), TABLE, SIZE), scale.double())
    heads, values = phi.unflatten(2, (G, D)), v.double().unflatten(2, (G, D))
    return torch.einsum("bngd,bnge->bgde", heads, values), heads.sum(dim=1)


def test_keys_may_come_in_parts(case):
    k, v, scale, table = case
    sums, first_rows = attention.Sums.zeros(2, G, D), 2 * SIZE[1]
    for part, first in ((slice(0, first_rows), 0), (slice(first_rows, None), first_rows)):
        encoding = Encoding(table, TABLE, SIZE, first)
        attention.add_keys(sums, k[:, part], v[:, part], inverse_scale(scale), encoding, 3)
    products, keys = expected_sums(*case)
    torch.testing.assert_close(sums.products.double(), products, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sums.keys.double(), keys, rtol=1e-5, atol=1e-4)


def test_answers_may_be_added_to_what_is_there(case):
    q, _, scale, _ = case
    means = attention.Sums(torch.rand(2, G, D, D), torch.rand(2, G, D))
    alone, added = torch.empty_like(q), torch.ones_like(q)
    for out, add in ((alone, False), (added, True)):
        attention.answer_queries(q, means, inverse_scale(scale), 3, out, add)
    torch.testing.assert_close(added, alone + 1)


def test_the_same_threads_give_the_same_bits(case):
    q, v, scale, table = case
    outs = [attention.forward(Inputs(q, q, v, scale, table, None, TABLE, SIZE, G, 3))[0] for _ in range(2)]
    assert torch.equal(*outs)


def test_what_is_not_a_number_stays_visible(case):
    q, v, scale, table = case
    q = q.clone()
    q[0, 3, 5] = float("nan")
    out, _ = attention.forward(Inputs(q, v, v, scale, table, None, TABLE, SIZE, G, 3))
    assert out[0, 3].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize(
    ("q", "factor"),
    [
        (torch.zeros(1, 4, 32).double(), 3),
        (torch.zeros(1, 4, 32).half(), 3),
        (torch.zeros(1, 4, 32, device="meta"), 3),
        (torch.zeros(1, 4, 48), 3),
        (torch.zeros(1, 0, 32), 3),
        (torch.zeros(1, 4, 32), 2.5),
        (torch.zeros(1, 4, 32), 32),
    ],
    ids=["double", "half", "meta", "24 channels a head", "no token", "no whole power", "a high power"],
)
def test_what_the_kernels_do_not_take(q, factor):
    assert not attention.supports(q, G, factor)


@pytest.mark.parametrize("factor", [1e-18, 1e19, 1e30])
def test_rows_whose_squares_float32_does_not_hold(case, factor):
    q, v, scale, table = case
    keys = torch.randn(2, 45, C)
    wide = [x.double() for x in (factor * q, keys, v, scale, table)]
    expected, _ = streaming.forward(Inputs(*wide, None, TABLE, SIZE, G, 3))
    out, _ = attention.forward(Inputs(factor * q, keys, v, scale, table, None, TABLE, SIZE, G, 3))
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_not_a_number_stays_visible(case):
    q, v, scale, table = case
    q = q.clone()
    q[0, 3, 5] = float("nan")
    _, context = attention.forward(Inputs(q, v, v, scale, table, None, TABLE, SIZE, G, 3))
    dq, *_ = attention.backward(torch.ones_like(q), Inputs(q, v, v, scale, table, None, TABLE, SIZE, G, 3), context)
    assert dq[0, 3].isnan().any()
    assert dq[1].isfinite().all()
