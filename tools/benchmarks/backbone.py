"""A whole backbone beside the released order of operations, and beside its Linear layers alone."""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from benchmarks.table import Table, ratio
from benchmarks.timing import machine
from flatten_dense.profiling import Case, alternating_passes

MIB = 2**20


def backbone(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A backbone beside the released order of operations and its Linear layers alone: evaluation, time and memory."""
    print(
        f"{machine(options.threads, options.device)}; {options.model}, {options.batch_size} image(s), bfloat16 by "
        f"autocast. Each in a process of its own; medians of {options.repetitions} alternating passes after "
        f"{options.warm_up}. Peak: most memory of a pass above the loaded model and images. Bound: how much faster "
        f"than the reference a model would be whose Linear layers were its only cost."
    )
    table = Table(
        {
            "side": "d",
            "dtype": "",
            "ms": ".1f",
            "reference, ms": ".1f",
            "times as fast": ".2f",
            "Linear alone, ms": ".1f",
        }
        | {"bound": ".2f", "peak, MiB": ".0f", "reference, MiB": ".0f", "share of its peak": ".2f"}
    )
    for dtype in options.dtypes:
        for side in options.sizes:
            ours, reference, linear = alternating_passes(
                [case(name, side, dtype, options) for name in (None, "reference_order", "linear_layers")],
                options.repetitions,
                options.warm_up,
            )
            ms, reference_ms, linear_ms = (
                1e3 * median(one.seconds for one in passes) for passes in (ours, reference, linear)
            )
            peak, reference_peak = (max(one.peak for one in passes) / MIB for passes in (ours, reference))
            speeds = reference_ms, reference_ms / ms, linear_ms, reference_ms / linear_ms
            table.add(side, dtype, ms, *speeds, peak, reference_peak, ratio(peak, reference_peak))
    return table.rows


def case(variant: str | None, side: int, dtype: str, options: argparse.Namespace) -> Case:
    """What a fresh process runs.

    Args:
        variant: a name of benchmarks.variants; None for the model itself.
        side: of the square images, in pixels.
        dtype: ``"float32"`` or ``"bfloat16"``.
        options: the benchmark's.
    """
    return Case(
        variant or options.model,
        (side, side),
        {"of": options.model} if variant else {},
        options.batch_size,
        dtype=dtype,
        device=options.device,
        threads=options.threads,
        imports=("benchmarks.variants",),
    )
