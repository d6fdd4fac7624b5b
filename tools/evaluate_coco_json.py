"""Score a COCO result file of anybody's model: the twelve numbers of COCOeval, and each class.

    python tools/evaluate_coco_json.py instances_val2017.json results.json --iou-type bbox
    python tools/evaluate_coco_json.py instances_val2017.json results.json --iou-type segm --errors
    python tools/evaluate_coco_json.py instances_val2017.json results.json --iou-type bbox --json > scores.json

The result file holds one list of the detections of all images:

    [{"image_id": 42, "category_id": 18, "bbox": [x, y, width, height], "score": 0.9, "segmentation": RLE}, ...]

with boxes in pixels of the original image, and the annotation file's own ids. Boxes need ``bbox``, masks need
``segmentation``; small, medium and large are told apart by the area of what is scored. All images of the annotation
file count, also those without detections. Nothing is scored until both files are right. The numbers are those of
pycocotools, also where faster-coco-eval is installed and used for speed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flatten_dense.metrics import (
    ERROR_KINDS,
    IOU_TYPES,
    CocoScores,
    DetectionErrors,
    coco_class_rows,
    coco_scores_as_dict,
    corners_suspected,
    detection_errors,
    evaluate_coco,
    read_results,
    read_truth,
)


def print_table(scores: CocoScores, iou_type: str) -> None:
    """Print each class and the twelve numbers, as fractions."""
    rows = coco_class_rows(scores)
    width = max(len(row["class"]) for row in [*rows, {"class": "class"}])
    print(f"{'class':{width}}  {'AP':>8}  {'AP50':>8}  {'truths':>8}  {'detections':>10}")
    for row in rows:
        numbers = (row[f"{iou_type}_AP"], row[f"{iou_type}_AP50"])
        ap, ap50 = ("-" if value is None else f"{value:.6f}" for value in numbers)
        print(f"{row['class']:{width}}  {ap:>8}  {ap50:>8}  {row['truths']:>8,}  {row['detections']:>10,}")
    print()
    for name, value in scores.stats[iou_type].items():
        print(f"{name:5} {value:.6f}")


def print_errors(errors: DetectionErrors) -> None:
    """Print how many mistakes there are of each kind, and what they cost."""
    print(f"\n{'mistake':12}  {f'score >= {errors.score_threshold:g}':>12}  {'costs AP50':>10}")
    for kind in ERROR_KINDS:
        print(f"{kind:12}  {errors.counts[kind].sum():>12,}  {errors.cost[kind]:>10.6f}")
    print(f"{'(correct)':12}  {errors.counts['correct'].sum():>12,}")


def _errors_as_dict(errors: DetectionErrors) -> dict[str, Any]:
    return {
        "score_threshold": errors.score_threshold,
        "counts": {kind: int(count.sum()) for kind, count in errors.counts.items()},
        "costs_AP50": {kind: None if math.isnan(cost) else cost for kind, cost in errors.cost.items()},
    }


def _arguments(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate_coco_json.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS", help="COCO annotation file, the truth")
    parser.add_argument("results", type=Path, metavar="RESULTS", help="COCO result file")
    parser.add_argument("--iou-type", choices=IOU_TYPES, required=True, help="score boxes or masks")
    parser.add_argument("--errors", action="store_true", help="also say which kinds of mistakes cost how much")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status, 2 if the input is not as it must be."""
    options = _arguments(args)
    try:
        truth = read_truth(options.annotations, options.iou_type)
        results = read_results(options.results, truth, options.iou_type)
    except ValueError as error:
        print(f"evaluate_coco_json.py: {error}", file=sys.stderr)
        return 2
    if corners_suspected(results, truth):
        print(
            f"{options.results}: most boxes reach beyond their images as [x, y, width, height], but not as "
            "(left, top, right, bottom); convert them if that is what they are",
            file=sys.stderr,
        )
    scores = evaluate_coco(truth, results, (options.iou_type,))
    errors = None
    if options.errors:
        errors = detection_errors(truth, results, scores.category_ids, options.iou_type)
    if options.json:
        found = {"iou_type": options.iou_type, **coco_scores_as_dict(scores)}
        if errors:
            found["errors"] = _errors_as_dict(errors)
        print(json.dumps(found, indent=2, allow_nan=False))
        return 0
    print(f"{scores.num_images} images, {len(results)} detections, {options.iou_type}\n")
    print_table(scores, options.iou_type)
    if errors:
        print_errors(errors)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
