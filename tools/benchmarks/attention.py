"""The attention module beside its projections alone, and beside the released order of operations."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.products import Product
from benchmarks.reference import ReferenceAttention
from benchmarks.table import Table
from benchmarks.timing import alternating_medians, machine
from flatten_dense.layers import FocusedLinearAttention, FusedAttention, TokenGrid
from flatten_dense.ops import attention_form

NATIVE_GRID = (56, 56)  # of the encoding in stage 1 of Swin at 224 pixels
PASSES = ("inference", "training")
FORMS = {"cpu": ("plain", "streaming", "native"), "cuda": ("plain", "streaming", "triton")}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def attention(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The attention module of stage 1 of FLatten-Swin-T in each of its forms, over its projections alone."""
    if torch.device(options.device).type == "cpu":
        torch.set_num_threads(options.threads)
    print(
        f"{machine(options.threads, options.device)}; C {options.dim}, {options.heads} heads, batch "
        f"{options.batch_size}; medians of {options.repetitions} alternating repetitions after {options.warm_up}. "
        f"G: the projections alone, x -> qkv and -> proj, at inference their products into memory that is there; all "
        f"else in multiples of it. bfloat16: autocast. A dash: the form cannot do it here."
    )
    forms = FORMS[torch.device(options.device).type]
    names = ("no option", *forms, "reference")
    table = Table({"pass": "", "dtype": "", "side": "d", "G, ms": ".2f"} | dict.fromkeys(names, ".2f"))
    for what in options.what:
        for dtype in options.dtypes:
            for side in options.sizes:
                seconds = module_seconds(what, dtype, side, options)
                ratios = [seconds[name] / seconds["G"] if name in seconds else None for name in names]
                table.add(what, dtype, side, 1e3 * seconds["G"], *ratios)
    return table.rows


def module_seconds(what: str, dtype: str, side: int, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of the projections, the module as it is, each form that can do this, and the reference.

    Args:
        what: ``"inference"``, or ``"training"`` for a forward and a backward pass.
        dtype: a key of DTYPES; anything but float32 is under autocast.
        side: of the square map, in tokens.
        options: the benchmark's.
    """
    torch.manual_seed(0)
    module = FusedAttention(options.dim, FocusedLinearAttention(options.dim, options.heads, NATIVE_GRID))
    nn.init.normal_(module.core.positional_encoding, std=0.02)
    module = module.to(options.device).train(what == "training")
    reference = ReferenceAttention(module)
    grid = TokenGrid((side, side))
    x = torch.randn(options.batch_size, side * side, options.dim, device=options.device)

    heads = x.clone().to(DTYPES[dtype])  # what the projection back gets

    def attend() -> Tensor:
        return module(x, grid)

    def project() -> tuple[Tensor, ...]:
        return module.qkv(x), module.proj(heads)

    products = [Product.of(layer, heads.flatten(0, 1)) for layer in (module.qkv, module.proj)]
    forms = FORMS[torch.device(options.device).type]
    forwards: dict[str, tuple[Callable[[], object], Callable[[], AbstractContextManager[object]]]] = {
        "G": (project if what == "training" else lambda: [product.run() for product in products], nullcontext),
        "no option": (attend, nullcontext),
        **{form: (attend, lambda form=form: attention_form(form)) for form in forms},
        "reference": (lambda: reference(x, grid.size), nullcontext),
    }
    run = _train if what == "training" else _infer
    leaves = [x, heads, *module.parameters()]
    calls = {
        name: run(forward, form, _autocast(options.device, dtype), leaves) for name, (forward, form) in forwards.items()
    }
    possible = [name for name in calls if name not in forms or _is_possible(calls[name])]
    seconds = alternating_medians(
        [calls[name] for name in possible], options.repetitions, options.warm_up, options.device
    )
    return dict(zip(possible, seconds, strict=True))


def _infer(
    forward: Callable[[], object],
    form: Callable[[], AbstractContextManager[object]],
    autocast: Callable[[], AbstractContextManager[object]],
    leaves: list[Tensor],
) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode(), autocast(), form():
            return forward()

    return run


def _train(
    forward: Callable[[], Any],
    form: Callable[[], AbstractContextManager[object]],
    autocast: Callable[[], AbstractContextManager[object]],
    leaves: list[Tensor],
) -> Callable[[], None]:
    """A forward and a backward pass, to inputs and parameters."""
    for leaf in leaves:
        leaf.requires_grad_()
    gradients: list[Tensor] = []

    def run() -> None:
        with form():
            with autocast():
                outputs = forward()
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            if not gradients:
                gradients.extend(torch.randn_like(output) for output in outputs)
            torch.autograd.backward(outputs, gradients)
        for leaf in leaves:
            leaf.grad = None

    return run


def _autocast(device: str, dtype: str) -> Callable[[], AbstractContextManager[object]]:
    if dtype == "float32":
        return nullcontext
    return lambda: torch.autocast(torch.device(device).type, DTYPES[dtype])


def _is_possible(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError:
        return False
    return True
