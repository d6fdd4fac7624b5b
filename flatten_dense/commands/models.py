"""`flatten-dense models`: the backbones with what they cost, beside the figures of the paper."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch

from flatten_dense.backbones.staged import MIN_SIDE
from flatten_dense.commands.published import of_variant
from flatten_dense.layers import Size
from flatten_dense.profiling.complexity import count_macs, count_parameters

_MAX_SIDE = 65_536  # far above any photo; beyond it token counts leave 64 bits
_HEADER = ("model", "native", "parameters", "MACs", "at", "paper: parameters", "FLOPs", "top-1")
_WIDTHS = (9, 10, 9, 11, 17, 6, 6)  # of all but the first
_LEGEND = """
MACs: multiply-accumulates of one image in convolutions, linear layers and the matrix products of attention.
paper: arXiv 2308.00442, Fig. 6, at the native size; its FLOPs are MACs; ~ is read off a chart, - not established.
"""


@dataclass(frozen=True)
class Cost:
    """What a variant costs.

    Attributes:
        name: of the variant.
        native_size: (H, W) that its learned tables are made for.
        input_size: (H, W) that ``macs`` are counted at.
        parameters: with the classifier of 1000 classes.
        macs: multiply-accumulates of one image.
    """

    name: str
    native_size: Size
    input_size: Size
    parameters: int
    macs: int


def cost_of(name: str, size: Size | None = None, **options: Any) -> Cost:  # noqa: ANN401 - any argument of a variant
    """Count a registered variant, without its weights ever being made.

    Args:
        name: of the variant.
        size: (H, W) of the image; None for the native size.
        options: further arguments of the variant.
    """
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    config: Any = model.pretrained_cfg
    channels, *native = config["input_size"]
    native_size = (native[0], native[1])
    height, width = size or native_size
    macs = count_macs(model, (1, channels, height, width))
    return Cost(name, native_size, (height, width), count_parameters(model), macs)


def find_models(wanted: Sequence[str]) -> list[str]:
    """Names of registered variants.

    Args:
        wanted: names, or patterns like ``*pvt*``; none for all. The micro variants ``*_test`` must be asked for.

    Raises:
        ValueError: nothing fits one of them.
    """
    known = timm.list_models("flatten_*")
    found: set[str] = set()
    for pattern in wanted or ["*"]:
        with_micro = pattern.endswith("_test")
        matches = [name for name in known if fnmatchcase(name, pattern) and (with_micro or not name.endswith("_test"))]
        if not matches:
            raise ValueError(f"there is no model {pattern!r}; {_hint(pattern, known)}")
        found.update(matches)
    return sorted(found, key=_place)


def _place(name: str) -> tuple[str, int]:
    """Where a variant is defined: the files go from small to large."""
    entrypoint = timm.model_entrypoint(name)
    return entrypoint.__module__, entrypoint.__code__.co_firstlineno


def _hint(pattern: str, known: list[str]) -> str:
    plain = pattern.strip("*").lower()
    containing = [name for name in known if plain and plain in name and not name.endswith("_test")]
    if containing:
        return f"'*{plain}*', with the quotes, lists {', '.join(containing)}"
    close = difflib.get_close_matches(plain, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else "`flatten-dense models` without a name lists all"


def parse_size(words: Sequence[str], option: str = "--size") -> Size:
    """Read ``224``, ``512x2048`` or ``512 2048`` as (H, W).

    Args:
        words: what was given.
        option: what it was given to, to be named in a refusal.

    Raises:
        ValueError: it is something else, or a side that the models do not take.
    """
    given = " ".join(words)
    match = re.fullmatch(r"(\d+)(?:[x ](\d+))?", given.lower())
    if match is None:
        raise ValueError(
            f"{option} takes a side in pixels, or height and width: 224, 512x2048 or 512 2048; got {given!r}"
        )
    height, width = int(match[1]), int(match[2] or match[1])
    if min(height, width) < MIN_SIDE or max(height, width) > _MAX_SIDE:
        raise ValueError(f"{option} must be {MIN_SIDE} to {_MAX_SIDE} pixels on each side, got {height} x {width}")
    return height, width


def run(args: Sequence[str]) -> None:
    """List the backbones with parameters and multiply-accumulates, beside the figures of the paper."""
    parser = argparse.ArgumentParser(prog="flatten-dense models", description=run.__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="names or '*patterns*'; all by default")
    parser.add_argument(
        "--size", nargs="+", metavar="SIDE", help="image: 224, or 512x2048 (height x width); native if not given"
    )
    parser.add_argument("--json", action="store_true", help="exact numbers as JSON")
    options = parser.parse_args(args)
    words: list[str] = options.size or []
    # `--size 512 NAME`: argparse takes the name for a part of the size.
    end = next((i for i, word in enumerate(words) if i and not word.isdecimal()), len(words))
    size = parse_size(words[:end]) if words else None
    names = find_models([*options.names, *words[end:]])
    costs = (cost_of(name, size) for name in names)
    if options.json:
        sys.stdout.write(json.dumps([_as_json(cost) for cost in costs], indent=2) + "\n")
        return
    width = max(map(len, names))
    sys.stdout.write(_line(_HEADER, width))
    for cost in costs:
        sys.stdout.write(_line(_cells(cost), width))
        sys.stdout.flush()  # all models together take some seconds
    sys.stdout.write(_LEGEND)


def _as_json(cost: Cost) -> dict[str, Any]:
    row = of_variant(cost.name)
    return {
        "name": cost.name,
        "native_size": cost.native_size,
        "input_size": cost.input_size,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "paper": row and {"parameters": row.parameters, "flops": row.flops, "top1": row.top1},
    }


def _line(cells: Sequence[str], width: int) -> str:
    aligned = (cell.rjust(other) for cell, other in zip(cells[1:], _WIDTHS, strict=True))
    return "  ".join([cells[0].ljust(width), *aligned]) + "\n"


def _cells(cost: Cost) -> tuple[str, ...]:
    row = of_variant(cost.name)
    printed = (row.parameters, row.flops, row.top1) if row else (None, None, None)
    return (
        cost.name,
        _by(cost.native_size),
        f"{cost.parameters / 1e6:.2f}M",
        f"{cost.macs / 1e9:.2f}G",
        _by(cost.input_size),
        *(text or "-" for text in printed),
    )


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
