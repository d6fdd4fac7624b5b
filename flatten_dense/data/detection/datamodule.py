"""Detection data: what the data modules of all formats share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

from flatten_dense.data.base import BaseDataModule, Split, collate_lists
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.checks import check_detection
from flatten_dense.data.detection.dataset import DetectionDataset
from flatten_dense.data.detection.detection_report import DetectionReport
from flatten_dense.data.detection.faults import SplitReading
from flatten_dense.data.detection.heaviest import heaviest_photos
from flatten_dense.data.detection.records import missing_photos
from flatten_dense.data.detection.sampler import AspectRatioSampler
from flatten_dense.data.detection.transforms import DetectionTrainTransform
from flatten_dense.data.images import DataError, first_few
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.structures import DetectionLabels, InputFormat, Normalization


class DetectionDataModule(BaseDataModule):
    """Photos with boxes and perhaps masks of objects; a subclass reads their annotations, and sets ``root``.

    The classes are those of the training annotations; other splits may number them otherwise, their names count.

    Args:
        with_masks: whether targets have masks; None means if the training annotations have any.
        labels: of a trained model, whose classes the annotations must name alike; their order is the model's.
        train_scale: (long, short) bounds of training images, aspect kept.
        short_sides: lengths of which one is drawn for each training image, in place of the short bound; None is that
            bound alone.
        crop: probability of a random crop before a training image is resized, on which it gets larger.
        crop_short_sides: lengths of which one is drawn for the short side of an image that is cropped.
        crop_range: of the height and the width of the crop, drawn each by itself.
        scale_jitter: range of a random factor on ``train_scale``, whose result is cropped into ``train_scale``:
            large-scale jitter (0.1 to 2, with a square scale). It takes the place of ``short_sides`` and ``crop``.
        copy_paste: probability that a training image gets objects of another one pasted in; needs masks in the data.
        flip: probability of mirroring a training image left to right.
        photometric: distort brightness, contrast, saturation and hue of training images.
        keep_empty: train on images without an object too.
        eval_scale: (long, short) bounds of evaluation images, aspect kept; None keeps their own size.
        normalization: mean and standard deviation of RGB scaled to 0..1; None is ImageNet's.
        batch_size: training images per step and process.
        eval_batch_size: images per validation or test batch.
        num_workers: processes that load data; None leaves one CPU to training and takes the others, at most 8.
    """

    root: Path

    labels_type = DetectionLabels
    collate_train = staticmethod(collate_lists)

    def __init__(
        self,
        with_masks: bool | None = None,
        labels: DetectionLabels | None = None,
        train_scale: tuple[int, int] = (1333, 800),
        short_sides: list[int] | None = None,
        crop: float = 0.0,
        crop_short_sides: tuple[int, ...] = (400, 500, 600),
        crop_range: tuple[int, int] = (384, 600),
        scale_jitter: tuple[float, float] | None = None,
        copy_paste: float = 0.0,
        flip: float = 0.5,
        photometric: bool = False,
        keep_empty: bool = False,
        eval_scale: tuple[int, int] | None = (1333, 800),
        normalization: Normalization | None = None,
        batch_size: int = 2,
        eval_batch_size: int = 1,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(
            InputFormat(eval_scale, normalization or Normalization()), batch_size, eval_batch_size, num_workers
        )
        self.masks_wanted = with_masks
        self.trained_labels = labels
        self.train_scale = train_scale
        self.short_sides = short_sides
        self.crop = crop
        self.crop_short_sides = crop_short_sides
        self.crop_range = crop_range
        self.scale_jitter = scale_jitter
        self.copy_paste = copy_paste
        self.flip = flip
        self.photometric = photometric
        self.keep_empty = keep_empty
        self._annotations: dict[Split, DetectionAnnotations] = {}

    @abstractmethod
    def inspect_split(self, split: Split) -> SplitReading:
        """Read the annotations of a split, with all their faults.

        Raises:
            DataError: if there are none to be read.
        """

    def read_split(self, split: Split) -> DetectionAnnotations:
        """The annotations of a split, read once.

        Raises:
            DataError: if they are not as they must be.
        """
        if split not in self._annotations:
            self._annotations[split] = self.inspect_split(split).require()
        return self._annotations[split]

    def check(self, progress: Callable[[int, int], object] = lambda done, total: None) -> DetectionReport:
        """Read all annotations and photos, as :func:`flatten_dense.data.detection.checks.check_detection`."""
        return check_detection(self, progress)

    @cached_property
    def labels(self) -> DetectionLabels:
        """The classes, found out at the first use.

        Raises:
            DataError: if the training annotations are not as they must be.
        """
        return self.make_labels()

    @cached_property
    def with_masks(self) -> bool:
        """Whether masks are to be learnt, found out at the first use; raises as :attr:`labels` does."""
        return self._with_masks("train")

    def make_labels(self) -> DetectionLabels:
        """Take the given labels, or those of the training annotations."""
        return self.trained_labels or self.read_split("train").labels

    def make_dataset(self, split: Split) -> DetectionDataset:
        """Read a split and see that its photos are there.

        Raises:
            ValueError: if an option is out of its range.
            DataError: if annotations or photos are missing, or not as they must be.
        """
        annotations = self.read_split(split)
        missing = missing_photos(annotations)
        if missing:
            raise DataError(
                f"{annotations.source}: {len(missing)} of the {len(annotations.images)} photos it names are not there: "
                f"{first_few(missing)}. Check the folder of the photos, {annotations.image_folder}, or take them out"
            )
        if split != "train":
            transform = EvalTransform(self.input_format)
            # A trained model is evaluated without its training data.
            masks = self.with_masks if self.trained_labels is None else self._with_masks(split)
            return DetectionDataset(annotations, self.labels, transform, masks)
        for option, needed in (("with_masks true", self.with_masks), ("copy_paste", self.copy_paste)):
            if needed and not _has_masks(annotations):
                raise DataError(f"--data.{option}: {annotations.source} holds boxes alone, no masks (segmentation)")
        return DetectionDataset(
            annotations, self.labels, self._train_transform(), self.with_masks, self.keep_empty, self.copy_paste
        )

    def make_sampler(self, processes: int, rank: int) -> AspectRatioSampler:
        """What says which photos, alike in being landscape or not, the training batches of one process are made of."""
        dataset = self.datasets["train"]
        assert isinstance(dataset, DetectionDataset)
        return AspectRatioSampler(dataset.sizes, self.batch_size, processes, rank)

    def heaviest(self, split: Split) -> list[int]:
        """The photos that make the largest images, and those with the most objects."""
        dataset = self.datasets[split]
        assert isinstance(dataset, DetectionDataset)
        sizes = [dataset.transform.largest_size(*size) for size in dataset.sizes]
        batch_size = self.batch_size if split == "train" else self.eval_batch_size
        return heaviest_photos(sizes, dataset.object_counts(), batch_size)

    def heaviest_batch(self, split: Split) -> dict[str, Any]:
        """Those photos at the largest of their sizes, with other objects pasted in if that may happen."""
        if split != "train":
            return super().heaviest_batch(split)
        dataset = copy(self.datasets[split])
        assert isinstance(dataset, DetectionDataset)
        dataset.transform = self._train_transform(largest=True)
        dataset.copy_paste = float(self.copy_paste > 0)
        return self.collate_train([dataset[index] for index in self.heaviest(split)])

    def _train_transform(self, largest: bool = False) -> DetectionTrainTransform:
        short_sides, scale_jitter = self.short_sides, self.scale_jitter
        if largest:
            short_sides = short_sides and [max(short_sides)]
            scale_jitter = scale_jitter and (scale_jitter[1], scale_jitter[1])
        return DetectionTrainTransform(
            scale=self.train_scale,
            short_sides=short_sides,
            crop=0.0 if largest else self.crop,
            crop_short_sides=self.crop_short_sides,
            crop_range=self.crop_range,
            scale_jitter=scale_jitter,
            flip=self.flip,
            photometric=self.photometric,
            normalization=self.normalization,
        )

    def _with_masks(self, split: Split) -> bool:
        return _has_masks(self.read_split(split)) if self.masks_wanted is None else self.masks_wanted


def _has_masks(annotations: DetectionAnnotations) -> bool:
    return any("segmentation" in entry and not entry["iscrowd"] for entry in annotations.annotations)
