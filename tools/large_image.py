"""Predict a large TIFF, made for the purpose, by the path that `flatten-dense predict` takes; print time and memory.

    python tools/large_image.py --height 20000 --width 20000

The model is untrained FLatten-PVT-T with Semantic FPN and 150 classes, unless options say otherwise.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import torch
from lightning import Trainer
from rasterio.windows import Window

from flatten_dense.backbones import TimmBackbone
from flatten_dense.callbacks import PredictionWriter
from flatten_dense.data.photos import PhotoDataModule
from flatten_dense.data.rasters import no_georeference_needed
from flatten_dense.data.shape_scenes import draw_scene
from flatten_dense.heads import SemanticFPNHead
from flatten_dense.inference import Inference
from flatten_dense.necks import FPN
from flatten_dense.structures import InputFormat, LabelSpace, default_palette
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask

BLOCK = 512


def write_tiff(path: Path, height: int, width: int) -> None:
    """A tiled, compressed RGB TIFF of drawn scenes, 8 different ones in turn."""
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, (BLOCK, BLOCK)).image.transpose(2, 0, 1) for _ in range(8)]
    down, across = -(-height // BLOCK), -(-width // BLOCK)
    with (
        no_georeference_needed(),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=3,
            dtype="uint8",
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            compress="deflate",
            interleave="pixel",
            photometric="rgb",
            bigtiff="if_safer",
        ) as target,
    ):
        for row in range(down):
            band = np.concatenate([scenes[(3 * row + column) % 8] for column in range(across)], axis=2)
            rows = min(BLOCK, height - row * BLOCK)
            target.write(band[:, :rows, :width], window=Window(0, row * BLOCK, width, rows))


def make_task(backbone: str, num_classes: int, channels: int | None, inference: Inference) -> SemanticSegmentationTask:
    """An untrained model; its neck and head have the published widths, or ``channels``."""
    torch.manual_seed(0)
    labels = LabelSpace(tuple(f"class {index}" for index in range(num_classes)), default_palette(num_classes))
    neck = partial(FPN, out_channels=channels) if channels else FPN
    head = partial(SemanticFPNHead, channels=channels) if channels else SemanticFPNHead
    return SemanticSegmentationTask(TimmBackbone(backbone), head, neck, labels=labels, inference=inference)


def predict(task: SemanticSegmentationTask, image: Path, output: Path, precision: str) -> tuple[float, float]:
    """Seconds of wall and of CPU time that the Trainer takes to write the mask and the overlay of one image."""
    photos = PhotoDataModule(image, task.labels, InputFormat(), num_workers=0)
    photos.max_pixels = task.inference.max_pixels
    writer = PredictionWriter(output, task.labels)
    trainer = Trainer(
        logger=False, callbacks=[writer], enable_checkpointing=False, enable_progress_bar=False, precision=precision
    )
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.predict(task, photos, return_predictions=False)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    if writer.failed:
        raise SystemExit("\n".join(writer.failed))
    return seconds


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**30 if sys.platform == "darwin" else 2**20)


def main(args: Sequence[str] | None = None) -> int:
    """Make the image, predict it, print what that took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=20_000, help="of the image in pixels")
    parser.add_argument("--width", type=int, default=20_000, help="the same")
    parser.add_argument("--backbone", default="flatten_pvt_tiny", help="any timm model that gives feature maps")
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--channels", type=int, help="channels of neck and head (default: the published ones)")
    parser.add_argument("--tile_size", type=int, default=Inference.tile_size)
    parser.add_argument("--overlap", type=int, default=Inference.overlap)
    parser.add_argument("--precision", default="32-true", help="as the Trainer takes it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--output", type=Path, help="a folder to keep image, mask and overlay in")
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    inference = Inference(mode="tiled", max_pixels=1, tile_size=options.tile_size, overlap=options.overlap)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        image = folder / "large.tif"
        write_tiff(image, options.height, options.width)
        task = make_task(options.backbone, options.classes, options.channels, inference)
        before = peak_gib()
        seconds, cpu_seconds = predict(task, image, folder, options.precision)
        with rasterio.open(folder / "masks" / "large.tif") as mask:
            size = [mask.height, mask.width]
    result = {
        "mask": size,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "megapixels_per_second": round(options.height * options.width / 1e6 / seconds, 4),
        "peak_GiB": round(peak_gib(), 2),
        "peak_GiB_before": round(before, 2),
        "full_logits_GiB": round(4 * options.classes * options.height * options.width / 2**30, 1),
        "torch": torch.__version__,
        "threads": options.threads,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
