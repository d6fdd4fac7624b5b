"""COCOeval over the annotations of a split and somebody's detections."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from flatten_dense.metrics.coco_scores import CocoScores, class_scores, twelve_stats

IOU_TYPES = ("bbox", "segm")
BACKENDS = ("faster-coco-eval", "pycocotools")


def evaluate_coco(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    iou_types: Sequence[str] = ("bbox",),
    image_ids: Iterable[int] | None = None,
    category_ids: Sequence[int] = (),
    backend: str | None = None,
) -> CocoScores:
    """Score detections by COCOeval, with its own settings (10 IoUs, at most 1, 10 and 100 detections).

    Crowds are ignore regions, and for masks so are the boxes of objects that have none. Masks are counted small, medium
    or large by their own area. Neither input is modified.

    Args:
        annotations: content of a COCO annotation file.
        results: content of a COCO result file, of images among ``image_ids``; what is not needed may be missing.
        iou_types: "bbox", "segm" or both.
        image_ids: the images to judge by; all by default.
        category_ids: the first classes of the scores; any others of the annotations follow by rising id.
        backend: one of ``BACKENDS``, with equal numbers; by default the first that is installed.
    """
    with without_collection():
        return _evaluate(annotations, results, iou_types, image_ids, category_ids, backend)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Keep Python from searching for circular garbage meanwhile.

    Half a million dictionaries without a circle among them take several times as long to make with it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _evaluate(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    iou_types: Sequence[str],
    image_ids: Iterable[int] | None,
    category_ids: Sequence[int],
    backend: str | None,
) -> CocoScores:
    images = {image["id"]: image for image in annotations["images"]}
    seen = sorted(images if image_ids is None else set(image_ids))
    names = {category["id"]: str(category.get("name", category["id"])) for category in annotations["categories"]}
    classes = (*category_ids, *sorted(set(names) - set(category_ids)))
    truths = _truths(annotations, set(seen))
    stats, per_class = {}, {}
    for iou_type in iou_types:
        precision, recall = _run(iou_type, [images[i] for i in seen], classes, truths, results, backend)
        stats[iou_type], per_class[iou_type] = twelve_stats(precision, recall), class_scores(precision)
    return CocoScores(
        stats,
        per_class,
        classes,
        tuple(names.get(category_id, str(category_id)) for category_id in classes),
        truths=_count(classes, (truth for truth in truths if not truth["iscrowd"])),
        detections=_count(classes, results),
        num_images=len(seen),
    )


def default_backend() -> str:
    """The fastest of ``BACKENDS`` that is installed."""
    return BACKENDS[0] if importlib.util.find_spec("faster_coco_eval") else BACKENDS[1]


def _truths(annotations: Mapping[str, Any], image_ids: set[int]) -> list[dict[str, Any]]:
    # COCOeval marks a match by the truth's id: 0 would count as none, and a repeated one as the last of its name.
    return [
        {**annotation, "id": number, "iscrowd": int(annotation.get("iscrowd", 0))}
        for number, annotation in enumerate(annotations["annotations"], start=1)
        if annotation["image_id"] in image_ids
    ]


def _count(classes: Sequence[int], items: Iterable[Mapping[str, Any]]) -> NDArray[np.int64]:
    position = {category_id: index for index, category_id in enumerate(classes)}
    positions = [position[item["category_id"]] for item in items]
    return np.bincount(np.array(positions, dtype=np.int64), minlength=len(classes))


def _run(
    iou_type: str,
    images: list[Mapping[str, Any]],
    classes: Sequence[int],
    truths: list[dict[str, Any]],
    results: Sequence[Mapping[str, Any]],
    backend: str | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision ``[10, 101, K, 4, 3]`` and recall ``[10, K, 4, 3]``, -1 where there is no truth."""
    if not images:  # COCOeval takes an empty list of images for all there are
        return -np.ones((10, 101, len(classes), 4, 3)), -np.ones((10, len(classes), 4, 3))
    detections = _boxes(results) if iou_type == "bbox" else _masks(results)
    with contextlib.redirect_stdout(io.StringIO()):
        coco, evaluator = _backend_classes(backend or default_backend())
        # Copies, because COCOeval writes into what it is given.
        truth = _dataset(coco, images, classes, [_truth(annotation, iou_type) for annotation in truths])
        evaluation = evaluator(truth, _dataset(coco, images, classes, detections), iouType=iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    order = np.argsort(np.argsort(classes))  # COCOeval has the classes by rising id
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return precision[:, :, order], recall[:, order]


def _backend_classes(backend: str) -> tuple[Any, Any]:
    if backend == "faster-coco-eval":
        module = importlib.import_module("faster_coco_eval")
        return module.COCO, module.COCOeval_faster
    return COCO, COCOeval


def _dataset(
    coco: Any,  # noqa: ANN401 - one of two classes without types
    images: list[Mapping[str, Any]],
    classes: Sequence[int],
    annotations: list[dict[str, Any]],
) -> Any:  # noqa: ANN401
    dataset = coco()
    dataset.dataset = {
        "images": [dict(image) for image in images],
        "categories": [{"id": category_id} for category_id in classes],
        "annotations": annotations,
    }
    dataset.createIndex()
    return dataset


def _truth(annotation: dict[str, Any], iou_type: str) -> dict[str, Any]:
    needed = ("id", "image_id", "category_id", "iscrowd", "area", "bbox" if iou_type == "bbox" else "segmentation")
    if iou_type == "segm" and not annotation.get("segmentation"):
        # What its mask would be is not known: within its box nothing is right or wrong.
        x, y, width, height = annotation["bbox"]
        box = [x, y, x + width, y, x + width, y + height, x, y + height]
        annotation = {**annotation, "segmentation": [box], "iscrowd": 1}
    return {key: annotation[key] for key in needed}


def _boxes(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "image_id": result["image_id"],
            "category_id": result["category_id"],
            "score": result["score"],
            "bbox": result["bbox"],
            "area": result["bbox"][2] * result["bbox"][3],
            "iscrowd": 0,
        }
        for number, result in enumerate(results, start=1)
    ]


def _masks(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "image_id": result["image_id"],
            "category_id": result["category_id"],
            "score": result["score"],
            "segmentation": result["segmentation"],
            "area": int(rle_masks.area(result["segmentation"])),  # of more than 255 at once pycocotools fails
            "iscrowd": 0,
        }
        for number, result in enumerate(results, start=1)
    ]
