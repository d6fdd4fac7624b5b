"""`flatten-dense profile`: time and memory of models over sizes of images, and which attention to use here."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

import torch

from flatten_dense.commands.devices import find_device
from flatten_dense.commands.models import parse_size
from flatten_dense.commands.profile_files import Profile
from flatten_dense.commands.profile_table import ProfileTable, in_short
from flatten_dense.layers import Size
from flatten_dense.profiling.advice import advise
from flatten_dense.profiling.choices import Choice, choices_of
from flatten_dense.profiling.machine import machine_facts
from flatten_dense.profiling.sweep import Settings, sweep

_DESCRIPTION = """Measure the time and the memory of models with random weights over sizes of images: each with its own
attention and with softmax attention in its place. Says how both grow, from which size on linear attention takes less,
and which to use on this machine. Each model runs in a process of its own; what would take too much memory or time is
left out. Models of timm may be given, too. Keep the machine idle meanwhile."""
_EXAMPLE = "example: flatten-dense profile flatten_swin_tiny swin_tiny_patch4_window7_224 --sizes 224,512,1024"
_LEGEND = """
time: median of a pass. peak memory: the most in use during a pass above the model and its images. MACs: multiply-
accumulates of the forward pass of one image. of softmax's: the same model and size with softmax attention is 1.
"""


def run(args: Sequence[str]) -> None:
    """Measure models; print a table, and write profile.json and profile.png.

    Args:
        args: as `--help` lists them.

    Raises:
        ValueError: a model does not exist, or an option is not as expected.
    """
    options = _parser().parse_args(args)
    device = find_device(options.device)
    sizes = _sizes(options.sizes)
    attentions = [word for word in (options.attention or "").split(",") if word]
    output = _new_folder(options.output)
    settings = Settings(
        sizes,
        options.batch_size,
        options.train,
        options.dtype,
        str(device),
        options.threads or torch.get_num_threads(),
        options.repetitions,
        options.limit,
    )
    groups = [choices_of(name, attentions, sizes) for name in dict.fromkeys(options.models)]
    facts = {"command": shlex.join(["flatten-dense", "profile", *args]), "machine": machine_facts(device)}
    profile = Profile(settings, facts)
    out = sys.stderr if options.json else sys.stdout
    _measure(groups, profile, output, out)
    out.write(f"\n{output / 'profile.png'}, {output / 'profile.json'}\n")
    if options.json:
        sys.stdout.write(profile.to_json())


def _measure(groups: Sequence[Sequence[Choice]], profile: Profile, output: Path, out: TextIO) -> None:
    """Print and save as the points come."""
    settings = profile.settings
    table = ProfileTable([choice for group in groups for choice in group], settings.sizes, settings.batch_size)

    def say(line: str) -> None:
        out.write(line + "\n")
        out.flush()

    say(f"{profile.conditions()}\n\n{table.header()}")
    for group in groups:
        points = sweep(group, settings)
        for size in settings.sizes:
            with _status(f"measuring {group[0].model} at {in_short(size)} ..."):
                found = next(points)
            baseline = next((p for p in found if p.choice.attention and not p.choice.has_linear), None)
            for point in found:
                say(table.row(point, baseline))
            profile.add(found)
            # After each size, so that a run that is stopped leaves what it has.
            profile.save(output)
    say(_LEGEND)
    if len(settings.sizes) > 1:
        say("\n".join(table.growth(profile.curves)) + "\n")
    for line in advise(profile.curves):
        say(line)


@contextmanager
def _status(text: str) -> Iterator[None]:
    """Show what is going on, on a terminal; without a moving picture, which would take time from what is measured."""
    is_shown = sys.stderr.isatty()
    if is_shown:
        sys.stderr.write(text)
        sys.stderr.flush()
    try:
        yield
    finally:
        if is_shown:
            sys.stderr.write("\r" + " " * len(text) + "\r")
            sys.stderr.flush()


def _sizes(text: str) -> list[Size]:
    words = [word for word in text.replace(",", " ").split() if word]
    if not words:
        raise ValueError("--sizes needs at least one side in pixels, like 224,512,1024")
    sizes = {parse_size([word], "--sizes") for word in words}
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def _new_folder(wanted: Path | None) -> Path:
    """Where to write: nothing is overwritten."""
    if wanted is None:
        return Path("runs") / "profile" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise ValueError(f"--output {wanted}: not an empty folder; name a new one, nothing is overwritten")
    return wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flatten-dense profile", description=_DESCRIPTION, epilog=_EXAMPLE, allow_abbrev=False
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="ours (`flatten-dense models`) or timm's")
    parser.add_argument(
        "--sizes",
        default="224,512,1024",
        help="sides in pixels, or HEIGHTxWIDTH (default: %(default)s)",
    )
    parser.add_argument(
        "--attention",
        help="of our models: LLSS,LLLL,SSSS, a letter a stage, or names like hydra (default: own and SSSS)",
    )
    parser.add_argument("--train", action="store_true", help="forward and backward pass in training mode")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16: autocast (default: %(default)s)",
    )
    parser.add_argument("--batch_size", type=_whole_number, default=1, help="images of a pass (default: 1)")
    parser.add_argument("--threads", type=_whole_number, help="on the CPU (default: PyTorch's choice)")
    parser.add_argument(
        "--repetitions", type=_whole_number, default=10, help="timed passes; fewer if they take long (default: 10)"
    )
    parser.add_argument(
        "--limit", type=_positive_number, default=60.0, metavar="SECONDS", help="longest pass (default: 60)"
    )
    parser.add_argument("--output", type=Path, help="new or empty folder (default: runs/profile/TIME)")
    parser.add_argument("--json", action="store_true", help="print what profile.json holds; the table goes to stderr")
    return parser


def _whole_number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number
