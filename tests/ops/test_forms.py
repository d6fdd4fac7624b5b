import pytest
import torch

from flatten_dense.ops import attention_form, forms
from flatten_dense.ops.focused_linear_attention import focused_linear_attention
from flatten_dense.ops.forms import choose_form, forced_form, load_form
from flatten_dense.ops.streaming import attention as streaming


class Fast:
    """A form for even numbers of channels."""

    def supports(self, q, num_heads, focusing_factor):
        return q.shape[2] % 2 == 0


@pytest.fixture
def loaded(monkeypatch):
    fast = Fast()
    found = {"native": fast, "streaming": streaming}
    monkeypatch.setattr(forms, "load_form", found.get)
    return fast


@pytest.mark.parametrize("channels", [2, 3])
def test_the_fast_form_is_chosen_where_it_can(loaded, channels):
    assert choose_form(torch.ones(1, 1, channels), 1, 3) is (loaded if channels == 2 else streaming)


def test_without_the_fast_form_there_is_streaming(loaded):
    forms.load_form.__self__.pop("native")
    assert choose_form(torch.ones(1, 1, 2), 1, 3) is streaming


def test_a_form_is_forced_inside_only(loaded):
    q = torch.ones(1, 1, 2)
    with attention_form("streaming"):
        assert choose_form(q, 1, 3) is streaming
    assert choose_form(q, 1, 3) is loaded


def test_the_form_before_returns_after_an_error():
    with pytest.raises(KeyError), attention_form("streaming"):
        raise KeyError
    assert forced_form() is None


@pytest.mark.parametrize("name", ["native", "triton"])
def test_a_forced_form_that_cannot_says_so(loaded, name):
    q = torch.ones(1, 1, 6, dtype=torch.float64)[..., ::2]
    with attention_form(name), pytest.raises(ValueError, match=rf"'{name}'.*float64 on cpu.*3 channels per head"):
        choose_form(q, 1, 3)


def test_an_unknown_form_is_refused():
    message = r"'fast' is unknown.*FLATTEN_DENSE_ATTENTION.*streaming"
    with pytest.raises(ValueError, match=message), attention_form("fast"):
        pass


def test_an_unknown_form_in_the_environment_is_refused_at_the_call(monkeypatch):
    monkeypatch.setattr(forms, "_forced", "fastest")
    x = torch.ones(1, 1, 4)
    with pytest.raises(ValueError, match="'fastest' is unknown"):
        focused_linear_attention(x, x, x, x, x, (1, 1), (1, 1), 2)


def test_a_form_that_is_not_installed_is_none(monkeypatch):
    monkeypatch.setitem(forms._MODULES, "missing", "flatten_dense.ops.missing")
    assert load_form("missing") is None
