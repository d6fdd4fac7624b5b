"""What an evaluation says about each class: a table, and a picture of which is taken for which."""

from collections.abc import Callable
from pathlib import Path

from lightning import LightningModule, Trainer

from flatten_dense.callbacks.best_evaluation import BestEvaluation
from flatten_dense.callbacks.class_table import write_class_table
from flatten_dense.metrics import SegmentationScores, per_class_rows
from flatten_dense.structures import LabelSpace
from flatten_dense.visualization import confusion_picture


class EvaluationReport(BestEvaluation[SegmentationScores]):
    """Write `per_class.csv` and `pictures/confusion.png`: of the best validation in a fit, else of the set evaluated.

    The table has the columns of :func:`flatten_dense.metrics.per_class_rows`, empty where there is no score.

    Args:
        run: the run's directory.
        scores: gives the scores of the evaluation that has just ended.
        labels: names of the classes.
    """

    def __init__(self, run: Path, scores: Callable[[], SegmentationScores | None], labels: LabelSpace) -> None:
        super().__init__(scores)
        self.run = run
        self.labels = labels

    def write(self, trainer: Trainer, pl_module: LightningModule, scores: SegmentationScores) -> None:
        """Write both files."""
        if not trainer.is_global_zero:
            return
        (self.run / "pictures").mkdir(parents=True, exist_ok=True)
        write_class_table(self.run / "per_class.csv", per_class_rows(scores, self.labels.class_names))
        confusion_picture(scores.confusion, self.labels).save(self.run / "pictures" / "confusion.png")
