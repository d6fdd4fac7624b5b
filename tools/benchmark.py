"""Time our models, data loader, scoring and training step; each benchmark is a sub-command that prints a table.

    python tools/benchmark.py attention
    python tools/benchmark.py backbone --model flatten_pvt_tiny --sizes 1024
    python tools/benchmark.py growth --model flatten_pvt_tiny
    python tools/benchmark.py siblings --models flatten_swin_tiny --sizes 512 1024
    python tools/benchmark.py gpu
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
from benchmarks.backbone import backbone
from benchmarks.coco import coco
from benchmarks.gpu import gpu
from benchmarks.growth import growth
from benchmarks.loader import loader
from benchmarks.siblings import SIBLINGS, siblings
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

    def add(benchmark: Callable[[argparse.Namespace], object]) -> argparse.ArgumentParser:
        own = benchmarks.add_parser(
            benchmark.__name__, help=benchmark.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        own.set_defaults(benchmark=benchmark)
        return own

    own = add(attention)
    own.add_argument("--dim", type=_at_least(1), default=96, help="C, channels")
    own.add_argument("--heads", type=_at_least(1), default=3, help="G, a divisor of C")
    own.add_argument(
        "--sizes", type=_at_least(1), nargs="+", default=[56, 128, 256], help="sides of the map, in tokens"
    )
    own.add_argument("--dtypes", choices=DTYPES, nargs="+", default=list(DTYPES), help="bfloat16 by autocast")
    own.add_argument("--what", choices=PASSES, nargs="+", default=list(PASSES), help="forward, or forward and backward")
    _add_passes(own, 15, 3)
    own = add(backbone)
    own.add_argument("--model", default="flatten_pvt_tiny", help="one of ours")
    own.add_argument("--sizes", type=_at_least(32), nargs="+", default=[1024], help="sides of the images, in pixels")
    own.add_argument("--dtypes", choices=DTYPES, nargs="+", default=list(DTYPES), help="bfloat16 by autocast")
    _add_passes(own, 5, 1)
    own = add(growth)
    own.add_argument("--model", default="flatten_pvt_tiny", help="of timm's registry, any size of image")
    own.add_argument(
        "--sizes", type=_at_least(32), nargs="+", default=[512, 1024, 2048, 4096], help="sides of the images, in pixels"
    )
    own.add_argument("--dtype", choices=DTYPES, default="float32", help="bfloat16 by autocast")
    own.add_argument("--seconds", type=_at_least(0), default=20, help="in which another pass may start, for each size")
    _add_passes(own, 5, None)
    own = add(siblings)
    own.add_argument("--models", choices=[pair.name for pair in SIBLINGS], nargs="+", help="all, if none is given")
    own.add_argument("--sizes", type=_at_least(32), nargs="+", default=[224], help="sides of the images, in pixels")
    own.add_argument("--dtype", choices=DTYPES, default="float32", help="bfloat16 by autocast")
    _add_passes(own, 30, 5)
    own = add(gpu)
    own.add_argument("--output", default="gpu_benchmark.json", help="file that gets all numbers")
    _add_passes(own, 20, 5, "cuda")
    own = add(loader)
    own.add_argument("--root", required=True, help="data set in the layout of ADE20K; its training split is read")
    own.add_argument("--reduce_zero_label", action="store_true", help="0 in the masks means not labelled")
    own.add_argument("--images", type=_at_least(1), default=64, help="timed images")
    own.add_argument("--batch_size", type=_at_least(1), default=4, help="images of a batch")
    own.add_argument("--workers", type=_at_least(1), default=1, help="processes that load")
    own = add(coco)
    own.add_argument("--images", type=_at_least(1), default=5000, help="of the made-up split")
    own.add_argument("--detections", type=_at_least(1), default=100, help="in an image")
    own.add_argument("--classes", type=_at_least(1), default=80, help="of objects")
    own.add_argument("--repetitions", type=_at_least(1), default=3, help="timed evaluations of each kind")
    own = add(step)
    own.add_argument("--task", choices=MODELS, default="segmentation", help="what is trained")
    own.add_argument("--backbone", default="flatten_pvt_nano", help="of the model")
    own.add_argument("--size", type=_at_least(32), default=96, help="of the square images")
    own.add_argument("--batch_size", type=_at_least(1), default=4, help="images of a step")
    own.add_argument("--steps", type=_at_least(BLOCK * (WARM_UP + 2)), default=300, help="of each training")
    options = parser.parse_args(args)
    options.benchmark(options)
    return 0


def _add_passes(own: argparse.ArgumentParser, repetitions: int, warm_up: int | None, device: str = "cpu") -> None:
    """Options of how passes are timed."""
    own.add_argument("--repetitions", type=_at_least(1), default=repetitions, help="timed passes of each")
    if warm_up is not None:
        own.add_argument("--warm_up", type=_at_least(0), default=warm_up, help="passes of each before those")
        own.add_argument("--batch_size", type=_at_least(1), default=1, help="images, or maps, of a pass")
    own.add_argument("--threads", type=_at_least(1), default=torch.get_num_threads(), help="of torch, on the CPU")
    own.add_argument("--device", default=device, help="where to run, like cuda or cuda:1")


if __name__ == "__main__":
    raise SystemExit(main())
