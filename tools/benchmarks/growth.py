"""How time and memory of a backbone grow with the pixels of its image."""

from __future__ import annotations

import argparse
import math
import time
from statistics import median
from typing import Any

from benchmarks.table import Table
from benchmarks.timing import machine
from flatten_dense.profiling import Case, FreshModel
from flatten_dense.profiling.growth import growth_exponent

GIB = 2**30


def growth(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time and memory of a backbone over the side of its image, and the exponents of their growth with the pixels."""
    print(
        f"{machine(options.threads, options.device)}; {options.model}, one image, {options.dtype}. Each size in a new "
        f"process; medians of up to {options.repetitions} passes, as many as start within {options.seconds} s, after "
        f"one. Peak: most memory of a pass above the loaded model and image; in all: with these."
    )
    table = Table({"side": "d", "ms": ".1f", "ns per pixel": ".1f", "peak, GiB": ".3f", "in all, GiB": ".3f"})
    for side in options.sizes:
        seconds, peak, loaded = measure(side, options)
        table.add(side, 1e3 * seconds, 1e9 * seconds / side**2, peak / GIB, (peak + loaded) / GIB)
    of_time, of_memory = (exponent(table.rows, name) for name in ("ms", "peak, GiB"))
    print(f"\nGrowth with pixels: time to the power of {of_time:.3f}, peak memory {of_memory:.3f}.")
    return [*table.rows, {"exponent of time": of_time, "exponent of peak memory": of_memory}]


def measure(side: int, options: argparse.Namespace) -> tuple[float, int, int]:
    """Median seconds, peak bytes, and bytes loaded before, of a model in a fresh process.

    Args:
        side: of the square image.
        options: the benchmark's.
    """
    case = Case(options.model, (side, side), dtype=options.dtype, device=options.device, threads=options.threads)
    with FreshModel(case) as model:
        first = model.run()
        passes = [model.run()]
        started = time.monotonic()
        while len(passes) < options.repetitions and time.monotonic() - started < options.seconds:
            passes.append(model.run())
    return median(one.seconds for one in passes), first.peak, model.loaded


def exponent(rows: list[dict[str, Any]], name: str) -> float:
    """Of the growth of a column with the pixels; NaN without two measured sizes.

    Args:
        rows: with a ``side`` each.
        name: of the column.
    """
    pixels, values = [row["side"] ** 2 for row in rows], [row[name] for row in rows]
    found = growth_exponent(pixels, values)
    return math.nan if found is None else found
