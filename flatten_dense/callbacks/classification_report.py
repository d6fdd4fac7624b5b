"""What an evaluation says about a classifier: a table of classes, the confusion matrix, the surest mistakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor, distributed

from flatten_dense.callbacks.best_evaluation import BestEvaluation
from flatten_dense.callbacks.class_table import write_class_table
from flatten_dense.callbacks.photo import photo_of
from flatten_dense.metrics import ClassificationScores, classification_rows
from flatten_dense.structures import ClassLabels, InputFormat
from flatten_dense.visualization import ClassifiedPhoto, classification_sheet, draw_confusion

_GUESSES = 5


class ClassificationReport(BestEvaluation[ClassificationScores]):
    """Write about the best validation in a fit, else about the set evaluated.

    Files: `per_class.csv` with the columns of :func:`flatten_dense.metrics.classification_rows`, empty where there is
    no score; in `pictures`, `confusion.png` (which classes were taken for which), and `mistakes.png`: the images that
    the model takes for another class with the greatest probability. With several processes each keeps its own
    mistakes, and one draws the surest of all.

    Args:
        run: the run's directory.
        scores: gives the scores of the evaluation that has just ended.
        labels: names of the classes.
        input_format: how the images were normalised.
        num_mistakes: how many to draw.
    """

    def __init__(
        self,
        run: Path,
        scores: Callable[[], ClassificationScores | None],
        labels: ClassLabels,
        input_format: InputFormat,
        num_mistakes: int = 24,
    ) -> None:
        super().__init__(scores)
        self.run = run
        self.labels = labels
        self.input_format = input_format
        self.num_mistakes = num_mistakes
        self._mistakes: list[ClassifiedPhoto] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last evaluation."""
        self._mistakes = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last evaluation."""
        self._mistakes = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the surest mistakes so far."""
        probabilities: Tensor = outputs["probabilities"]
        wrong = (probabilities.argmax(1) != batch["label"]).nonzero().flatten().tolist()
        least = self._mistakes[-1].guesses[0][1] if len(self._mistakes) == self.num_mistakes else 0.0
        surest = [index for index in wrong if float(probabilities[index].max()) >= least]
        found = [classified(batch, probabilities, index, self.labels, self.input_format) for index in surest]
        self._mistakes = self._first([*self._mistakes, *found])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same for `test`."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def write(self, trainer: Trainer, pl_module: LightningModule, scores: ClassificationScores) -> None:
        """Collect the mistakes of all processes and write all files in one."""
        mistakes = self._mistakes
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(gathered, mistakes)
            mistakes = self._first([photo for photos in gathered for photo in photos])
        if not trainer.is_global_zero:
            return
        pictures = self.run / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        write_class_table(self.run / "per_class.csv", classification_rows(scores, self.labels.class_names))
        names = self.labels.class_names
        draw_confusion(scores.confusion, names, names, "images").save(pictures / "confusion.png")
        if mistakes:
            classification_sheet(mistakes).save(pictures / "mistakes.png")
        else:
            (pictures / "mistakes.png").unlink(missing_ok=True)  # of an earlier, worse evaluation of this run

    def _first(self, mistakes: list[ClassifiedPhoto]) -> list[ClassifiedPhoto]:
        return sorted(mistakes, key=lambda photo: (-photo.guesses[0][1], photo.name))[: self.num_mistakes]


def classified(
    batch: dict[str, Any], probabilities: Tensor, index: int, labels: ClassLabels, input_format: InputFormat
) -> ClassifiedPhoto:
    """What is drawn of one image of an evaluation batch.

    Args:
        batch: with image, label and path.
        probabilities: ``[B, K]``.
        index: of the image in the batch.
        labels: names of the classes.
        input_format: how the images were normalised.
    """
    image = batch["image"][index]
    photo = photo_of(image, input_format, image.shape[-2:])
    truth = labels.class_names[int(batch["label"][index])]
    path = Path(batch["path"][index])
    return ClassifiedPhoto(photo, truth, guesses_of(probabilities[index], labels), f"{path.parent.name}/{path.name}")


def guesses_of(probabilities: Tensor, labels: ClassLabels) -> list[tuple[str, float]]:
    """The five most probable classes of ``[K]`` with their probabilities."""
    values, indices = probabilities.float().topk(min(_GUESSES, labels.num_classes))
    return [(labels.class_names[i], value) for i, value in zip(indices.tolist(), values.tolist(), strict=True)]
