"""COCO's scores of a whole split, from detections as they arrive, batch by batch and process by process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torchmetrics import Metric

from flatten_dense.metrics.coco_evaluation import evaluate_coco, without_collection
from flatten_dense.metrics.coco_scores import CocoScores
from flatten_dense.metrics.detection_errors import DetectionErrors, detection_errors
from flatten_dense.structures import Detections


class _Found(NamedTuple):
    """The detections of one image: rows (left, top, right, bottom, score), class indices, and compressed masks."""

    rows: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: list[bytes]


class CocoDetection(Metric):
    """Run COCOeval over the annotations of a split and the detections in those of its images that were seen.

    :meth:`begin` comes before the first :meth:`update`. What is kept grows with the detections, 24 bytes each and a
    compressed mask. Processes exchange their detections by image id, so an image that several of them saw counts once,
    and all get the same scores.

    Args:
        iou_types: the regions to score, ("bbox",) or ("bbox", "segm").
        backend: as :func:`flatten_dense.metrics.evaluate_coco` takes it.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, iou_types: Sequence[str] = ("bbox",), backend: str | None = None) -> None:
        super().__init__(sync_on_compute=False)  # torchmetrics exchanges tensors only; see _gather
        self.iou_types = tuple(iou_types)
        self.backend = backend
        self._annotations: Mapping[str, Any] | None = None
        self._category_ids: tuple[int, ...] = ()
        self._sizes: dict[int, tuple[int, int]] = {}
        self._found: dict[int, _Found] = {}
        self._gathered = False

    def begin(self, annotations: Mapping[str, Any], category_ids: Sequence[int]) -> None:
        """Take the truth of a split, and forget all detections.

        Args:
            annotations: content of a COCO annotation file; kept, and not modified.
            category_ids: the data set's own number of each class index.
        """
        self.reset()
        self._annotations = annotations
        self._category_ids = tuple(category_ids)
        self._sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}

    def update(self, detections: Sequence[Detections], image_ids: Sequence[int]) -> None:
        """Add the detections of a batch, one entry per image, also where nothing was found.

        Args:
            detections: boxes in pixels of the original image, masks of its size.
            image_ids: what the annotations call the images.

        Raises:
            ValueError: if an image is not of this split, a class is none of its classes, a box or score is not what
                it must be, or masks are missing or of another size.
        """
        if self._annotations is None:
            raise ValueError("CocoDetection has no truth to compare with; call begin(annotations, category_ids) first")
        self._gathered = False
        for found, image_id in zip(detections, image_ids, strict=True):
            self._found[image_id] = self._checked(found, image_id)

    def compute(self) -> CocoScores:
        """Score what was found in the images seen since :meth:`begin`; all processes must call it.

        Raises:
            RuntimeError: in the other processes, if the first one failed.
        """
        self._gather()
        if not _distributed():
            return self._evaluate()
        # One process evaluates: COCOeval takes some GB for a large split.
        outcome: list[CocoScores | None] = [None]
        try:
            if dist.get_rank() == 0:
                outcome[0] = self._evaluate()
        finally:
            dist.broadcast_object_list(outcome, src=0)
        if outcome[0] is None:
            raise RuntimeError("the first process could not score the detections; see its own message")
        return outcome[0]

    def results(self) -> list[dict[str, Any]]:
        """The detections as a COCO result file lists them, with the data set's own ids, by image and falling score.

        All processes must call it, unless :meth:`compute` came before; all get the detections of all.
        """
        self._gather()
        with without_collection():
            return [row for image_id in sorted(self._found) for row in self._rows(image_id)]

    def errors(self) -> DetectionErrors:
        """The mistakes among the detections, by the first kind of region.

        All processes must call it, unless :meth:`compute` came before; all get the mistakes of all.
        """
        assert self._annotations is not None
        results = self.results()
        return detection_errors(
            self._annotations, results, self._category_ids, self.iou_types[0], image_ids=self._found
        )

    def reset(self) -> None:
        """Forget all detections; the truth stays."""
        super().reset()
        self._found = {}
        self._gathered = False

    def _evaluate(self) -> CocoScores:
        assert self._annotations is not None
        results = self.results()
        return evaluate_coco(self._annotations, results, self.iou_types, self._found, self._category_ids, self.backend)

    def _gather(self) -> None:
        """Exchange detections, once after the last update."""
        if not _distributed() or self._gathered:
            return
        parts: list[dict[int, _Found]] = [{}] * dist.get_world_size()
        dist.all_gather_object(parts, self._found)
        self._found = {image_id: found for part in reversed(parts) for image_id, found in part.items()}
        self._gathered = True

    def _checked(self, found: Detections, image_id: int) -> _Found:
        if image_id not in self._sizes:
            raise ValueError(
                f"image {image_id} is not in the annotations that CocoDetection began with ({len(self._sizes)} images)"
            )
        boxes, scores = (values.detach().float().cpu().numpy() for values in (found.boxes, found.scores))
        labels = found.labels.detach().cpu().numpy().astype(np.int32)
        rows = np.concatenate([boxes.reshape(-1, 4), scores.reshape(-1, 1)], axis=1)
        if not np.isfinite(rows).all():
            raise ValueError(
                f"image {image_id}: a detection has a box or score that is not finite; the model has probably diverged"
            )
        if (rows[:, :2] > rows[:, 2:4]).any():
            raise ValueError(f"image {image_id}: a box ends before it begins; expected (left, top, right, bottom)")
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self._category_ids):
            raise ValueError(
                f"image {image_id}: detections of classes {labels.min()}..{labels.max()}, expected "
                f"0..{len(self._category_ids) - 1}"
            )
        return _Found(rows, labels, self._compressed(found, image_id) if "segm" in self.iou_types else [])

    def _compressed(self, found: Detections, image_id: int) -> list[bytes]:
        size = self._sizes[image_id]
        masks = found.masks
        if masks is None or len(masks) != len(found.boxes):
            received = "none" if masks is None else str(len(masks))
            raise ValueError(f"image {image_id}: {len(found.boxes)} detections need as many masks, got {received}")
        for mask in masks:
            if tuple(mask["size"]) != size:
                raise ValueError(f"image {image_id}: a mask of {tuple(mask['size'])}, expected the image's own {size}")
        return [mask["counts"] for mask in masks]

    def _rows(self, image_id: int) -> list[dict[str, Any]]:
        found = self._found[image_id]
        left, top, right, bottom, scores = found.rows.astype(np.float64).T
        boxes = np.stack([left, top, right - left, bottom - top], axis=1)
        rows = [
            {"image_id": image_id, "category_id": self._category_ids[label], "bbox": box, "score": score}
            for box, score, label in zip(boxes.tolist(), scores.tolist(), found.labels.tolist(), strict=True)
        ]
        if "segm" in self.iou_types:
            for row, counts in zip(rows, found.masks, strict=True):
                row["segmentation"] = {"size": list(self._sizes[image_id]), "counts": counts}
        return rows


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
