"""What an evaluation says about a detector: a table of classes, plots, and what was found."""

from collections.abc import Callable
from pathlib import Path

import torch
from lightning import LightningModule, Trainer

from flatten_dense.callbacks.best_evaluation import BestEvaluation
from flatten_dense.callbacks.class_table import write_class_table
from flatten_dense.metrics import CocoDetection, CocoScores, coco_class_rows, write_results
from flatten_dense.structures import DetectionLabels
from flatten_dense.visualization import detection_confusion_picture, plot_detection_errors, plot_precision_recall


class DetectionReport(BestEvaluation[CocoScores]):
    """Write about the best validation in a fit, else about the set evaluated.

    Files: `per_class.csv` with the columns of :func:`flatten_dense.metrics.coco_class_rows`, empty where there is no
    score; `detections.json`, a COCO result file with the data set's own ids; and in `pictures`, `precision_recall.png`,
    `errors.png` (kinds of mistakes) and `confusion.png` (which objects were taken for which).

    Args:
        run: the run's directory.
        scores: gives the scores of the evaluation that has just ended.
        coco: what they were computed by; it still holds the detections.
        labels: names and colours of the classes.
    """

    def __init__(
        self, run: Path, scores: Callable[[], CocoScores | None], coco: CocoDetection, labels: DetectionLabels
    ) -> None:
        super().__init__(scores)
        self.run = run
        self.coco = coco
        self.labels = labels

    def write(self, trainer: Trainer, pl_module: LightningModule, scores: CocoScores) -> None:
        """Write all files."""
        if not trainer.is_global_zero:
            return
        pictures = self.run / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        write_class_table(self.run / "per_class.csv", coco_class_rows(scores))
        write_results(self.coco.results(), self.run / "detections.json")
        plot_precision_recall(scores.per_class, self.labels, pictures / "precision_recall.png")
        errors = self.coco.errors()
        plot_detection_errors(errors, pictures / "errors.png")
        confusion = torch.from_numpy(errors.confusion)
        detection_confusion_picture(confusion, errors.class_names).save(pictures / "confusion.png")
