"""Time our models, data loader, scoring and training step; each benchmark is a sub-command that prints a table.

    python tools/benchmark.py attention
    python tools/benchmark.py siblings
    python tools/benchmark.py loader --root ADEChallengeData2016 --reduce_zero_label
    python tools/benchmark.py coco
    python tools/benchmark.py step

Times of models, of scoring and of steps are medians of repetitions that alternate between those compared, so that what
else the machine does hits them alike. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from benchmarks.attention import DTYPES, PASSES, attention
from benchmarks.coco import coco
from benchmarks.loader import loader
from benchmarks.siblings import siblings
from benchmarks.step import BLOCK, MODELS, WARM_UP, step


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer from {least}, got {text!r}")
        return int(text)

    return integer


def main(args: Sequence[str] | None = None) -> int:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    own = benchmarks.add_parser(
        "attention", help=attention.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    own.set_defaults(benchmark=attention)
    own.add_argument("--dim", type=_at_least(1), default=96, help="C, channels")
    own.add_argument("--heads", type=_at_least(1), default=3, help="G, a divisor of C")
    own.add_argument(
        "--sizes", type=_at_least(1), nargs="+", default=[56, 128, 256], help="sides of the map, in tokens"
    )
    own.add_argument("--dtypes", choices=DTYPES, nargs="+", default=list(DTYPES), help="bfloat16 by autocast")
    own.add_argument("--what", choices=PASSES, nargs="+", default=list(PASSES), help="forward, or forward and backward")
    own.add_argument("--batch_size", type=_at_least(1), default=1, help="maps of a pass")
    own.add_argument("--repetitions", type=_at_least(1), default=15, help="timed passes of each form")
    own.add_argument("--warm_up", type=_at_least(0), default=3, help="passes of each form before those")
    own.add_argument("--threads", type=_at_least(1), default=torch.get_num_threads(), help="of torch")
    own.add_argument("--device", default="cpu", help="where to run, like cuda")
    own = benchmarks.add_parser(
        "siblings", help=siblings.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    own.set_defaults(benchmark=siblings)
    own.add_argument("--batch_size", type=_at_least(1), default=1, help="images of a forward pass")
    own.add_argument("--repetitions", type=_at_least(1), default=30, help="timed forward passes of each model")
    own.add_argument("--warm_up", type=_at_least(0), default=5, help="forward passes of each model before those")
    own.add_argument("--threads", type=_at_least(1), default=torch.get_num_threads(), help="of torch")
    own = benchmarks.add_parser("loader", help=loader.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    own.set_defaults(benchmark=loader)
    own.add_argument("--root", required=True, help="data set in the layout of ADE20K; its training split is read")
    own.add_argument("--reduce_zero_label", action="store_true", help="0 in the masks means not labelled")
    own.add_argument("--images", type=_at_least(1), default=64, help="timed images")
    own.add_argument("--batch_size", type=_at_least(1), default=4, help="images of a batch")
    own.add_argument("--workers", type=_at_least(1), default=1, help="processes that load")
    own = benchmarks.add_parser("coco", help=coco.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    own.set_defaults(benchmark=coco)
    own.add_argument("--images", type=_at_least(1), default=5000, help="of the made-up split")
    own.add_argument("--detections", type=_at_least(1), default=100, help="in an image")
    own.add_argument("--classes", type=_at_least(1), default=80, help="of objects")
    own.add_argument("--repetitions", type=_at_least(1), default=3, help="timed evaluations of each kind")
    own = benchmarks.add_parser("step", help=step.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    own.set_defaults(benchmark=step)
    own.add_argument("--task", choices=MODELS, default="segmentation", help="what is trained")
    own.add_argument("--backbone", default="flatten_pvt_nano", help="of the model")
    own.add_argument("--size", type=_at_least(32), default=96, help="of the square images")
    own.add_argument("--batch_size", type=_at_least(1), default=4, help="images of a step")
    own.add_argument("--steps", type=_at_least(BLOCK * (WARM_UP + 2)), default=300, help="of each training")
    options = parser.parse_args(args)
    options.benchmark(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
