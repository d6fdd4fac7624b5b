"""`flatten-dense demo`: the main job from beginning to end on the embedded data set."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info
from rich.progress import Progress

from flatten_dense.commands import trainer
from flatten_dense.data.shapes import write_shapes

NUM_TRAIN, NUM_VAL = 1200, 120


class _Job(NamedTuple):
    """What the demo does for a task.

    Attributes:
        recipe: that is trained.
        what: it trains, in words.
        layout: of the shapes, a folder of the data set.
        photos: of the validation scenes, a folder of the layout.
        test_options: of `test`, to take the validation scenes.
        scores: what is said of the result, filled from metrics.json.
        pictures: what `predict` draws, in its output folder.
    """

    recipe: str
    what: str
    layout: str
    photos: str
    test_options: tuple[str, ...]
    scores: str
    pictures: str = "overlays"


JOBS = {
    "segmentation": _Job(
        "segmentation/flatten_pvt_nano_fpn_shapes",
        "a small FLatten-PVT with Semantic FPN",
        "ade20k",
        "images/validation",
        ("--data.test_split", "validation"),
        "mIoU {mIoU:.3f}, mAcc {mAcc:.3f}, pixel accuracy {aAcc:.3f}",
    ),
    "detection": _Job(
        "detection/flatten_pvt_nano_mask_rcnn_shapes",
        "a small FLatten-PVT with a slim Mask R-CNN",
        "coco",
        "val2017",
        (),
        "box AP {bbox[AP]:.3f}, mask AP {segm[AP]:.3f}",
    ),
    "classification": _Job(
        "classification/flatten_pvt_nano_shapes",
        "a small FLatten-PVT as a classifier",
        "imagefolder",
        "val/star",
        (),
        "top-1 {top1:.3f} over the single shapes",
        "predictions.png",
    ),
}


def run(args: Sequence[str]) -> None:
    """Make the shapes, train, test from the checkpoint alone, predict, and say what came out.

    Args:
        args: options of the command; those it does not know go to `fit`.
    """
    parser = argparse.ArgumentParser(prog="flatten-dense demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--task", choices=JOBS, default="segmentation", help="what to train")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder for the data and the run")
    options, fit_options = parser.parse_known_args(args)
    job = JOBS[options.task]
    started = time.perf_counter()
    with Progress() as progress:
        bar = progress.add_task(f"Drawing {NUM_TRAIN + NUM_VAL} scenes", total=NUM_TRAIN + NUM_VAL)
        data = options.output / "shapes_data"
        write_shapes(data, NUM_TRAIN, NUM_VAL, progress=lambda done, _: progress.update(bar, completed=done))
    root = data / job.layout
    processor = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    common = [*processor, "--data.root", str(root), "--runs", str(options.output)]
    rank_zero_info(f"Training {job.what} on {NUM_TRAIN} scenes in {root}")
    fitted = trainer.run("fit", ["-c", job.recipe, "--name", "demo", *common, *fit_options]).run_directory
    assert fitted is not None
    best = ["--ckpt_path", str(fitted / "checkpoints" / "best.ckpt")]
    rank_zero_info("\nThe checkpoint alone: scoring and predicting the validation scenes")
    tested = trainer.run("test", [*best, *common, *job.test_options]).run_directory
    assert tested is not None
    predictions = fitted / "predictions"
    trainer.run("predict", [*best, *processor, "--input", str(root / job.photos), "--output", str(predictions)])
    metrics = json.loads((tested / "metrics.json").read_text())
    rank_zero_info(
        f"\nDone in {time.perf_counter() - started:.0f} s: {job.scores.format(**metrics)} on {NUM_VAL} scenes it has "
        "not seen.\n"
        f"Look at {tested}/pictures/test.png, {fitted}/curves.png and {predictions}/{job.pictures}"
    )
