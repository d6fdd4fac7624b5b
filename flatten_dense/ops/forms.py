"""The forms that the focused linear attention operator is computed in, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Protocol, cast

from torch import Tensor

from flatten_dense.ops.inputs import Inputs

VARIABLE = "FLATTEN_DENSE_ATTENTION"
_MODULES = {
    "triton": "flatten_dense.ops.triton_kernels.attention",
    "native": "flatten_dense.ops.native.attention",
    "streaming": "flatten_dense.ops.streaming.attention",
}
FORMS = ("plain", *_MODULES)

_forced = os.environ.get(VARIABLE) or None


class Form(Protocol):
    """What the module of a form has: the operator's two functions."""

    def supports(self, q: Tensor, num_heads: int, focusing_factor: float) -> bool:
        """Whether it can compute these, both ways, on this machine."""

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The output and the context."""

    def backward(self, grad: Tensor, inputs: Inputs, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The gradients of q, k, v, scale and encoding."""


@contextmanager
def attention_form(name: str) -> Iterator[None]:
    """Compute focused linear attention in one form, whatever would be the fastest; for tests and for debugging.

    It holds for what runs inside, backward passes included, in every thread. The environment variable
    ``FLATTEN_DENSE_ATTENTION`` does the same for a whole process.

    Args:
        name: "plain" (PyTorch functions on whole maps), "streaming" (the same in chunks), "native" (compiled C, on a
            CPU) or "triton" (on a GPU).

    Raises:
        ValueError: if there is no form of that name; inside, if the form cannot take the tensors of a call.
    """
    global _forced
    before, _forced = _forced, name
    try:
        forced_form()
        yield
    finally:
        _forced = before


def forced_form() -> str | None:
    """The one form to use; None for the fastest."""
    if _forced is not None and _forced not in FORMS:
        raise ValueError(
            f"attention form {_forced!r} is unknown; attention_form or the environment variable {VARIABLE} takes one "
            f"of {', '.join(FORMS)}"
        )
    return _forced


def choose_form(q: Tensor, num_heads: int, focusing_factor: float) -> Form:
    """The fastest form that takes these tensors, or the forced one.

    Raises:
        ValueError: if the forced one does not.
    """
    forced = forced_form()
    if forced is None or forced == "plain":  # "plain" itself never comes here: a compiled graph from before it was set
        fast = load_form("triton" if q.is_cuda else "native")
        if fast is not None and fast.supports(q, num_heads, focusing_factor):
            return fast
        return _streaming()
    form = load_form(forced)
    if form is None or not form.supports(q, num_heads, focusing_factor):
        raise ValueError(
            f"attention form {forced!r} was demanded, but cannot take {q.dtype} on {q.device.type} with "
            f"{q.shape[2] // num_heads} channels per head here; leave attention_form and {VARIABLE} unset to get the "
            "fastest form that can"
        )
    return form


def _streaming() -> Form:
    return cast(Form, load_form("streaming"))


@cache
def load_form(name: str) -> Form | None:
    """The module of a form, imported when it is first wanted; None where what it needs is not installed."""
    try:
        return cast(Form, import_module(_MODULES[name]))
    except ModuleNotFoundError:
        return None
