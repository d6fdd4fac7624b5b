import pytest
import torch

from flatten_dense.ops.naive import naive_feature_map
from flatten_dense.ops.streaming.focus import Focus

B, N, C = 2, 7, 12


def make_inputs():
    torch.manual_seed(0)
    return torch.randn(B, N, C).double().requires_grad_(), torch.randn(1, 1, C).double().requires_grad_()


@pytest.fixture(params=["ordinary", "scaled"])
def care(request, monkeypatch):
    """Whether rows are divided by their largest first."""
    monkeypatch.setattr(Focus, "_are_ordinary", lambda *_: request.param == "ordinary")


@pytest.mark.usefixtures("care")
@pytest.mark.parametrize("focusing_factor", [1, 2, 3, 4, 2.5, 8])
def test_the_parts_make_up_the_feature_map(focusing_factor):
    x, scale = (t.detach() for t in make_inputs())
    focus = Focus(scale, focusing_factor, torch.float64)
    rows = focus.rows(focus.prepare(x))
    expected = naive_feature_map(x, scale, focusing_factor)
    torch.testing.assert_close(rows.powered * rows.ratio, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.usefixtures("care")
@pytest.mark.parametrize("focusing_factor", [1, 2, 3, 2.5])
def test_gradients_equal_those_of_the_feature_map(focusing_factor):
    x, scale = make_inputs()
    weight = torch.randn(B, N, C).double()
    expected = torch.autograd.grad((naive_feature_map(x, scale, focusing_factor) * weight).sum(), (x, scale))
    focus = Focus(scale.detach(), focusing_factor, torch.float64)
    rows = focus.rows(focus.prepare(x.detach()))
    dratio = (weight * rows.powered).sum(-1, keepdim=True)
    got = focus.backward(weight * rows.ratio, dratio, rows), focus.scale_gradient()
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_an_encoding_is_added_before_the_relu():
    x, scale = (t.detach() for t in make_inputs())
    encoding = torch.randn(1, N, C).double()
    focus = Focus(scale, 3, torch.float64)
    torch.testing.assert_close(focus.prepare(x, focus.offset(encoding)), focus.prepare(x + encoding))


@pytest.mark.parametrize("value", [-1.0, 1e-6, 6e4, 1e30])
@pytest.mark.parametrize("focusing_factor", [3, 8, 32])
def test_extreme_rows_give_finite_numbers_beside_ordinary_ones(value, focusing_factor):
    x = torch.ones(1, 4, 64)
    x[0, 2] = value
    focus = Focus(torch.zeros(1, 1, 64), focusing_factor, torch.float32)
    rows = focus.rows(focus.prepare(x))
    phi = rows.powered * rows.ratio
    torch.testing.assert_close(phi, rows.prepared, rtol=1e-4, atol=0)  # equal channels stay what they are
    dx = focus.backward(torch.ones_like(phi) * rows.ratio, rows.powered.sum(-1, keepdim=True), rows)
    assert dx.isfinite().all()
