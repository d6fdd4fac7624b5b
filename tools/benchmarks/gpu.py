"""All that the kernels for CUDA promise, on the GPU at hand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.attention import attention
from benchmarks.backbone import backbone
from benchmarks.correctness import VERDICT, WRONG, correctness
from benchmarks.floor import floor
from benchmarks.growth import growth
from benchmarks.siblings import siblings
from benchmarks.timing import machine

FORM = "triton"
PARTS: Mapping[str, tuple[Callable[[argparse.Namespace], list[dict[str, Any]]], Mapping[str, Any]]] = {
    "equal to the naive form": (correctness, {"form": FORM}),
    "distance to the memory-bound floor": (floor, {"form": FORM, "side": 256, "dims": [96, 192, 384, 512]}),
    "attention module": (
        attention,
        {"dim": 96, "heads": 3, "sizes": [56, 128, 256], "dtypes": ["float32", "bfloat16"]}
        | {"what": ["inference", "training"]},
    ),
    "backbone beside the released order of operations": (
        backbone,
        {"model": "flatten_pvt_tiny", "sizes": [1024, 2048], "dtypes": ["float32", "bfloat16"]},
    ),
    "Swin beside softmax": (siblings, {"models": ["flatten_swin_tiny"], "sizes": [512, 1024], "dtype": "bfloat16"}),
    "DeiT beside softmax": (siblings, {"models": ["flatten_deit_tiny"], "sizes": [1024, 2048], "dtype": "bfloat16"}),
    "growth": (
        growth,
        {"model": "flatten_pvt_tiny", "sizes": [512, 1024, 2048, 4096], "dtype": "bfloat16", "seconds": 10},
    ),
}


def gpu(options: argparse.Namespace) -> dict[str, Any]:
    """On a CUDA machine: Triton's form against the naive one, its share of the memory-bound floor, and all models."""
    if not torch.cuda.is_available():
        raise SystemExit(
            "no CUDA device here: run this on a machine with one, with a PyTorch build that finds it "
            "(torch.cuda.is_available() is False)"
        )
    return run_parts(options, PARTS)


def run_parts(
    options: argparse.Namespace,
    parts: Mapping[str, tuple[Callable[[argparse.Namespace], list[dict[str, Any]]], Mapping[str, Any]]],
) -> dict[str, Any]:
    """Run benchmarks one after another and write what they measured after each.

    Args:
        options: ``device``, ``threads``, ``batch_size``, ``repetitions``, ``warm_up`` for all; ``output``, a file.
        parts: title to benchmark and its own options.

    Raises:
        SystemExit: at the end, if results are wrong.
    """
    results: dict[str, Any] = {"machine": machine(options.threads, options.device)}
    for title, (benchmark, own) in parts.items():
        print(f"\n## {title[0].upper()}{title[1:]}\n")
        results[title] = benchmark(argparse.Namespace(**{**vars(options), **own}))
        Path(options.output).write_text(json.dumps(results, indent=1))
    print(f"\nAll numbers: {options.output}")
    wrong = sum(row.get(VERDICT) == WRONG for rows in results.values() if isinstance(rows, list) for row in rows)
    if wrong:
        raise SystemExit(f"{wrong} cases are not equal to the naive form: see the first table, trust no time of these")
    return results
