"""Pictures of a run that classifies."""

from pathlib import Path
from typing import Any

from PIL import Image

from flatten_dense.callbacks.classification_report import classified
from flatten_dense.callbacks.pictures import EvaluationPlotter
from flatten_dense.structures import ClassLabels, InputFormat
from flatten_dense.visualization import ClassifiedPhoto, classification_sheet


class ClassificationPlotter(EvaluationPlotter[ClassifiedPhoto]):
    """Draw evaluation images with their true and predicted classes.

    Args:
        directory: where `validation_step_000500.png` and `test.png` go.
        labels: names of the classes.
        input_format: how the images were normalised.
        num_images: how many.
    """

    def __init__(self, directory: Path, labels: ClassLabels, input_format: InputFormat, num_images: int = 24) -> None:
        super().__init__(directory, num_images)
        self.labels = labels
        self.input_format = input_format

    def sample(self, outputs: Any, batch: dict[str, Any]) -> ClassifiedPhoto:  # noqa: ANN401 - what the step returns
        """Photo, truth and guesses."""
        return classified(batch, outputs["probabilities"], 0, self.labels, self.input_format)

    def draw(self, samples: list[ClassifiedPhoto]) -> Image.Image:
        """A grid of them."""
        return classification_sheet(samples)
