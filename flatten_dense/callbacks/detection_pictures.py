"""Pictures of a detection run: what was found, beside what there is."""

from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from flatten_dense.callbacks.coco_rows import result_rows, to_xywh
from flatten_dense.callbacks.photo import photo_of
from flatten_dense.callbacks.pictures import EvaluationPlotter
from flatten_dense.metrics.detection_matching import match_detections
from flatten_dense.structures import DetectionLabels, Detections, InputFormat
from flatten_dense.visualization import DetectionSample, detection_sheet
from flatten_dense.visualization.boxes import MIN_SCORE

_MOST = 100  # detections of an image, of which COCO counts no more
_LONGEST_SIDE = 1024  # of the copies that are kept; a picture of the sheet is smaller still


class DetectionPlotter(EvaluationPlotter[DetectionSample]):
    """Draw evaluation images with their objects, and beside them with those that were found.

    Boxes with a score below ``min_score`` are not drawn. One that is the first to find an object of its class, at an
    IoU of boxes of at least 0.5, is right; the others are marked, and so are objects that no drawn box found.

    Args:
        directory: where `validation_step_000500.png` and `test.png` go.
        labels: names and colours of the classes.
        input_format: how the images were normalised.
        num_images: rows of the picture.
        min_score: of the boxes that are drawn.
    """

    def __init__(
        self,
        directory: Path,
        labels: DetectionLabels,
        input_format: InputFormat,
        num_images: int = 6,
        min_score: float = MIN_SCORE,
    ) -> None:
        super().__init__(directory, num_images)
        self.labels = labels
        self.input_format = input_format
        self.min_score = min_score

    def sample(self, outputs: Any, batch: dict[str, Any]) -> DetectionSample:  # noqa: ANN401 - as above
        """The first image of the batch, as a small copy."""
        height, width = batch["size"][0]
        factor = min(1.0, _LONGEST_SIDE / max(height, width))
        photo = photo_of(batch["image"][0], self.input_format, [max(1, round(s * factor)) for s in (height, width)])
        truth = {key: v.cpu() if isinstance(v, Tensor) else v for key, v in batch["target"][0].items()}
        found: Detections = outputs["detections"][0]
        boxes, scores, labels = (values[:_MOST].cpu() for values in (found.boxes, found.scores, found.labels))
        found = Detections(boxes, scores, labels, found.masks and found.masks[:_MOST])
        missed, wrong = _mistakes(truth, found, self.labels.num_classes, self.min_score)
        return DetectionSample(photo, (height, width), truth, found, missed, wrong, Path(batch["path"][0]).name)

    def draw(self, samples: list[DetectionSample]) -> Image.Image:
        """One row for each."""
        return detection_sheet(samples, self.labels, self.min_score)


def _mistakes(
    truth: dict[str, Any], found: Detections, num_classes: int, min_score: float
) -> tuple[list[bool], list[bool]]:
    """Which objects no box that is drawn found, and which boxes found none."""
    is_crowd = truth["iscrowd"].bool().tolist()
    objects = [
        {"image_id": 0, "category_id": label, "bbox": box, "iscrowd": int(crowd)}
        for label, box, crowd in zip(truth["labels"].tolist(), to_xywh(truth["boxes"]), is_crowd, strict=True)
    ]
    detections = result_rows(found._replace(masks=None), 0, range(num_classes))
    annotations = {"images": [{"id": 0, "height": 1, "width": 1}], "annotations": objects}
    matches = match_detections(annotations, detections, range(num_classes))
    found_ones = set(matches.truth[matches.scores >= min_score].tolist())
    numbers = iter(range(len(objects)))  # of the objects that are no crowds
    missed = [not crowd and next(numbers) not in found_ones for crowd in is_crowd]
    return missed, ((matches.truth < 0) & ~matches.ignored).tolist()
