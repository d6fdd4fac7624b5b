"""FLatten models beside the softmax models of the same size."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch

from benchmarks.timing import alternating_medians, machine
from flatten_dense.commands.published import PUBLISHED

SIDE = 224  # timm's DeiT and Swin take no other


@dataclass(frozen=True)
class Pair:
    """A FLatten variant and the softmax model of the same size.

    Attributes:
        name: of the variant.
        sibling: registered name.
        options: arguments of the sibling.
        what: the sibling, in words.
    """

    name: str
    sibling: str
    options: Mapping[str, Any] = field(default_factory=dict)
    what: str = "timm's"


_ROWS = {row.label: row for row in PUBLISHED}
_NOT_IN_TIMM = "ours with softmax attention; timm has no such family"
SIBLINGS = (
    Pair("flatten_deit_tiny", "deit_tiny_patch16_224"),
    Pair("flatten_pvt_tiny", "flatten_pvt_tiny", _ROWS["PVT-T"].options, _NOT_IN_TIMM),
    Pair("flatten_pvt_v2_b0", "pvt_v2_b0"),
    Pair("flatten_pvt_v2_b2", "pvt_v2_b2"),
    Pair("flatten_swin_tiny", "swin_tiny_patch4_window7_224"),
    Pair("flatten_cswin_tiny", "flatten_cswin_tiny", _ROWS["CSwin-T"].options, _NOT_IN_TIMM),
)


def forward_pass(name: str, images: torch.Tensor, **options: Any) -> Callable[[], object]:  # noqa: ANN401 - of a model
    """A call that runs an untrained model in evaluation mode on these images."""
    model = timm.create_model(name, **options).eval()

    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def siblings(options: argparse.Namespace) -> None:
    """Each FLatten family beside the softmax model of the same size: evaluation, float32."""
    torch.set_num_threads(options.threads)
    print(
        f"{machine(options.threads)}; float32, {options.batch_size} image(s) of {SIDE} x {SIDE}, "
        f"median of {options.repetitions} alternating repetitions after {options.warm_up} for warm-up.\n"
    )
    print("| FLatten | ms | softmax sibling | ms | FLatten / softmax |\n|---|---|---|---|---|")
    images = torch.randn(options.batch_size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for pair in SIBLINGS:
        calls = [forward_pass(pair.name, images), forward_pass(pair.sibling, images, **pair.options)]
        ours, theirs = (1e3 * s for s in alternating_medians(calls, options.repetitions, options.warm_up))
        print(
            f"| {pair.name} | {ours:.1f} | {pair.sibling} ({pair.what}) | {theirs:.1f} | {ours / theirs:.2f} |",
            flush=True,
        )
