"""`flatten-dense demo`: the main job from beginning to end on the embedded data set."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info
from rich.progress import Progress

from flatten_dense.commands import trainer
from flatten_dense.data.shapes import write_shapes

RECIPE = "segmentation/flatten_pvt_nano_fpn_shapes"
NUM_TRAIN, NUM_VAL = 1200, 120


def run(args: Sequence[str]) -> None:
    """Make the shapes, train, test from the checkpoint alone, predict, and say what came out.

    Args:
        args: options of the command; those it does not know go to `fit`.
    """
    parser = argparse.ArgumentParser(prog="flatten-dense demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for the data and the run")
    options, fit_options = parser.parse_known_args(args)
    started = time.perf_counter()
    with Progress() as progress:
        bar = progress.add_task(f"Drawing {NUM_TRAIN + NUM_VAL} scenes", total=NUM_TRAIN + NUM_VAL)
        data = options.output / "shapes_data"
        write_shapes(data, NUM_TRAIN, NUM_VAL, progress=lambda done, _: progress.update(bar, completed=done))
    root = data / "ade20k"
    processor = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    common = [*processor, "--data.root", str(root), "--runs", str(options.output)]
    rank_zero_info(f"Training a small FLatten-PVT with Semantic FPN on {NUM_TRAIN} scenes in {root}")
    fitted = trainer.run("fit", ["-c", RECIPE, "--name", "demo", *common, *fit_options]).run_directory
    assert fitted is not None
    best = ["--ckpt_path", str(fitted / "checkpoints" / "best.ckpt")]
    rank_zero_info("\nThe checkpoint alone: scoring and predicting the validation scenes")
    tested = trainer.run("test", [*best, *common, "--data.test_split", "validation"]).run_directory
    assert tested is not None
    predictions = fitted / "predictions"
    trainer.run(
        "predict", [*best, *processor, "--input", str(root / "images/validation"), "--output", str(predictions)]
    )
    metrics = json.loads((tested / "metrics.json").read_text())
    rank_zero_info(
        f"\nDone in {time.perf_counter() - started:.0f} s: mIoU {metrics['mIoU']:.3f}, mAcc {metrics['mAcc']:.3f}, "
        f"pixel accuracy {metrics['aAcc']:.3f} on {NUM_VAL} scenes it has not seen.\n"
        f"Look at {tested}/pictures/test.png, {fitted}/curves.png and {predictions}/overlays"
    )
