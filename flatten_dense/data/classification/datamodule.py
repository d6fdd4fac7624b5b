"""Classification data: photos with one class each, however they are stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from flatten_dense.data.base import BaseDataModule, Split
from flatten_dense.data.classification.transforms import Augmentation, ClassificationTrainTransform
from flatten_dense.data.images import DataError, first_few
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.structures import ClassLabels, InputFormat

ImageTransform = Callable[[Tensor], Tensor]
"""uint8 RGB ``[3, H, W]`` -> float32 ``[3, h, w]``."""

IMAGENET_EVALUATION = InputFormat((256, 256), resize="squash", crop=(224, 224), interpolation="bicubic")
"""What the published figures of FLatten Transformer were measured with."""


class ClassificationDataModule(BaseDataModule):
    """Photos with one class each; a subclass says where they are.

    Args:
        labels: of a trained model; the data must have the same classes.
        augmentation: how photos become training images.
        input_format: how evaluation images are resized and cropped, and all normalised. The default squashes to 256 x
            256 and takes the middle 224 x 224, as the published figures of FLatten Transformer were measured; with
            ``resize: short_side`` the aspect ratio is kept, as is usual elsewhere.
        batch_size: training images per step and process.
        eval_batch_size: images per validation or test batch.
        num_workers: processes that load data; None leaves one CPU to training and takes the others, at most 8.
    """

    labels_type = ClassLabels
    collate_eval = staticmethod(default_collate)

    def __init__(
        self,
        labels: ClassLabels | None = None,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
        input_format: InputFormat = IMAGENET_EVALUATION,
        batch_size: int = 128,
        eval_batch_size: int = 64,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(input_format, batch_size, eval_batch_size, num_workers)
        self.trained_labels = labels
        self.augmentation = augmentation

    @abstractmethod
    def read_class_names(self) -> tuple[str, ...]:
        """The classes that the data hold, in the order of their indices.

        Raises:
            DataError: if the data do not say.
        """

    @cached_property
    def labels(self) -> ClassLabels:
        """What the classes are called, found out at the first use.

        Raises:
            DataError: if the data do not say what their classes are, or a trained model has others.
        """
        return self.make_labels()

    def make_labels(self) -> ClassLabels:
        """Take the given labels, or the names that the data hold."""
        names = self.read_class_names() if self.trained_labels is None else self.trained_labels.class_names
        try:
            return ClassLabels(names)
        except ValueError as error:
            raise DataError(f"--data.root: {error}") from None

    def setup(self, stage: str) -> None:
        """Make the data sets that a stage needs.

        Raises:
            ValueError: if an option is out of its range, or evaluation images would differ in size; if the data are not
                as they must be (DataError).
        """
        how = self.input_format
        if how.crop is None and (how.scale is None or how.resize != "squash"):
            raise ValueError(
                "evaluation images go through the model in batches, so they must be of one size: set "
                f"--data.input_format.crop, or --data.input_format.resize squash with a scale; got scale {how.scale}, "
                f"resize {how.resize}, no crop"
            )
        super().setup(stage)

    def transform(self, split: Split) -> ImageTransform:
        """What turns photos of a split into inputs.

        Raises:
            ValueError: if an option is out of its range.
        """
        if split != "train":
            return EvalTransform(self.input_format)
        return ClassificationTrainTransform(self.augmentation, self.normalization)

    def evaluation_loader(self, split: Split) -> DataLoader[dict[str, Any]]:
        """Batches of any split as `validate` reads its own: each photo once, not augmented.

        Raises:
            ValueError: as :meth:`setup`.
        """
        dataset: Any = self.make_dataset(split)
        dataset.transform = self.transform("val")
        self.datasets["val"] = dataset
        return self.val_dataloader()


def require_known(found: set[str], labels: ClassLabels, where: object) -> None:
    """Refuse classes that a model does not know.

    Raises:
        DataError: if there are any.
    """
    unknown = sorted(found - set(labels.class_names))
    if unknown:
        raise DataError(
            f"{where}: holds {len(unknown)} classes that are not among the {labels.num_classes} of the model "
            f"({first_few(labels.class_names)}): {first_few(unknown)}. Rename or remove them, or start a new fit with "
            "training data of all classes"
        )


def sample(image: Tensor, label: int, path: str) -> dict[str, Any]:
    """An item of every classification data set: float32 ``[3, h, w]``, class index, where it came from."""
    return {"image": image, "label": label, "path": path}
