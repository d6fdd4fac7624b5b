"""FLatten models beside the softmax models of the same size."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.table import Table, ratio
from benchmarks.timing import machine
from flatten_dense.commands.published import PUBLISHED
from flatten_dense.profiling import Case, alternating_passes

MIB = 2**20


@dataclass(frozen=True)
class Pair:
    """A FLatten variant and the softmax model of the same size.

    Attributes:
        name: of the variant.
        sibling: registered name.
        options: arguments of the sibling.
        what: the sibling, in words.
        is_sized: whether the sibling is made for the size of the images, as timm's DeiT and Swin are.
    """

    name: str
    sibling: str
    options: Mapping[str, Any] = field(default_factory=dict)
    what: str = "timm's"
    is_sized: bool = False

    def arguments(self, side: int) -> dict[str, Any]:
        """Of the sibling, for square images."""
        return {**self.options, **({"img_size": side} if self.is_sized else {})}


_ROWS = {row.label: row for row in PUBLISHED}
_NOT_IN_TIMM = "ours with softmax attention; timm has no such family"
SIBLINGS = (
    Pair("flatten_deit_tiny", "deit_tiny_patch16_224", is_sized=True),
    Pair("flatten_pvt_tiny", "flatten_pvt_tiny", _ROWS["PVT-T"].options, _NOT_IN_TIMM),
    Pair("flatten_pvt_v2_b0", "pvt_v2_b0"),
    Pair("flatten_pvt_v2_b2", "pvt_v2_b2"),
    Pair("flatten_swin_tiny", "swin_tiny_patch4_window7_224", is_sized=True),
    Pair("flatten_cswin_tiny", "flatten_cswin_tiny", _ROWS["CSwin-T"].options, _NOT_IN_TIMM),
)


def siblings(options: argparse.Namespace) -> list[dict[str, Any]]:
    """FLatten models beside the softmax models of the same size: evaluation, time and memory."""
    print(
        f"{machine(options.threads, options.device)}; {options.dtype}, {options.batch_size} image(s). Each in a "
        f"process of its own; medians of {options.repetitions} alternating passes after {options.warm_up}. Peak: most "
        f"memory of a pass above the loaded model and images."
    )
    table = Table(
        {"FLatten": "", "side": "d", "ms": ".1f", "softmax sibling": "", "its ms": ".1f", "FLatten / softmax": ".2f"}
        | {"peak, MiB": ".0f", "its peak, MiB": ".0f", "FLatten / softmax, peak": ".2f"}
    )
    for pair in SIBLINGS:
        for side in options.sizes if options.models is None or pair.name in options.models else ():
            cases = [_case(pair.name, {}, side, options), _case(pair.sibling, pair.arguments(side), side, options)]
            passes = alternating_passes(cases, options.repetitions, options.warm_up)
            ours, theirs = (1e3 * median(one.seconds for one in own) for own in passes)
            own_peak, their_peak = (max(one.peak for one in own) / MIB for own in passes)
            what = f"{pair.sibling} ({pair.what})"
            table.add(
                pair.name, side, ours, what, theirs, ours / theirs, own_peak, their_peak, ratio(own_peak, their_peak)
            )
    return table.rows


def _case(name: str, arguments: Mapping[str, Any], side: int, options: argparse.Namespace) -> Case:
    return Case(
        name,
        (side, side),
        arguments,
        options.batch_size,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
    )
