"""Semantic segmentation data: photos with masks, whatever the layout of their folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from flatten_dense.data.base import BaseDataModule, Split
from flatten_dense.data.checks import check_data
from flatten_dense.data.class_list import check_same_classes, read_labels, with_label_map
from flatten_dense.data.images import DataError, read_header, read_image
from flatten_dense.data.label_values import outside_classes, read_label_values, values_outside
from flatten_dense.data.pairs import FolderLayout, Pairing, require_pairs
from flatten_dense.data.segmentation_report import SegmentationReport
from flatten_dense.data.transforms import EvalTransform, SegmentationTrainTransform
from flatten_dense.structures import InputFormat, LabelSpace, Normalization


class SegmentationDataModule(BaseDataModule):
    """Photos and masks of one name; a subclass says in which folders.

    A subclass sets ``layout``, ``train_split`` and ``val_split``.

    Args:
        root: folder of the data set; only read, never written to.
        classes: class list: a name per line; or with colours, ``r g b name``; or a table with the columns Idx and Name,
            such as ADE20K's. By default ``classes.txt`` or ``objectInfo150.txt`` in ``root``, if there.
        num_classes: number of classes; checked against the class list, or names "class 1" and so on without one.
        reduce_zero_label: masks hold 0 for unlabelled and 1..K for the classes (ADE20K), instead of 0..K-1; None is as
            the trained model's data, or False.
        ignore_index: label value of pixels that neither loss nor metric counts; None likewise, or 255.
        labels: of a trained model. Its classes must be those of the options above; the masks may hold them otherwise.
        test_split: the split that ``test`` reads.
        train_scale: (long, short) bounds of training images at ratio 1, aspect kept; None is their own size.
        ratio_range: range of the random factor on ``train_scale``.
        crop_size: (height, width) of training images.
        max_class_share: training crops are drawn again, up to ten times, while one class has at least this share.
        flip: probability of mirroring a training image left to right.
        photometric: distort brightness, contrast, saturation and hue of training images.
        eval_scale: (long, short) bounds of evaluation images, aspect kept; None keeps their own size.
        normalization: mean and standard deviation of RGB scaled to 0..1; None is ImageNet's.
        batch_size: training images per step and process.
        eval_batch_size: images per validation or test batch.
        num_workers: processes that load data; None leaves one CPU to training and takes the others, at most 8.
        label_map: file that says which class each value of the masks means (``7,road``), or each colour
            (``128 64 128 road``); ``ignore`` for what does not count. Without a class list it names the classes too.

    Raises:
        DataError: for this class itself, which has no layout.
    """

    labels_type = LabelSpace
    layout: FolderLayout
    train_split: str
    val_split: str

    def __init__(
        self,
        root: Path,
        classes: Path | None = None,
        num_classes: int | None = None,
        reduce_zero_label: bool | None = None,
        ignore_index: int | None = None,
        labels: LabelSpace | None = None,
        test_split: str = "test",
        train_scale: tuple[int, int] | None = (2048, 512),
        ratio_range: tuple[float, float] = (0.5, 2.0),
        crop_size: tuple[int, int] = (512, 512),
        max_class_share: float = 0.75,
        flip: float = 0.5,
        photometric: bool = True,
        eval_scale: tuple[int, int] | None = (2048, 512),
        normalization: Normalization | None = None,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int | None = None,
        label_map: Path | None = None,
    ) -> None:
        if type(self) is SegmentationDataModule:
            raise DataError(
                "how photos and masks are laid out is not said: give --data ADE20KDataModule, FolderPairsDataModule or "
                "a class of your own, or a recipe (-c), which says it"
            )
        super().__init__(
            InputFormat(eval_scale, normalization or Normalization()), batch_size, eval_batch_size, num_workers
        )
        self.root = Path(root).expanduser()
        self.classes = classes
        self.num_classes = num_classes
        self.reduce_zero_label = reduce_zero_label
        self.ignore_index = ignore_index
        self.trained_labels = labels
        self.test_split = test_split
        self.train_scale = train_scale
        self.ratio_range = ratio_range
        self.crop_size = crop_size
        self.max_class_share = max_class_share
        self.flip = flip
        self.photometric = photometric
        self.label_map = label_map

    @property
    def folders(self) -> dict[Split, str]:
        """What each split is called on disk."""
        return {"train": self.train_split, "val": self.val_split, "test": self.test_split}

    @cached_property
    def labels(self) -> LabelSpace:
        """What the classes are called and how masks hold them, found out at the first use.

        Raises:
            DataError: if the data do not say what their classes are, or contradict the options.
        """
        return self.make_labels()

    def make_labels(self) -> LabelSpace:
        """Take the given labels, or read the class list and the label map."""
        if self.trained_labels is None:
            ignore_index = 255 if self.ignore_index is None else self.ignore_index
            return read_labels(
                self.root, self.classes, self.num_classes, bool(self.reduce_zero_label), ignore_index, self.label_map
            )
        check_same_classes(self.root, self.trained_labels, self.classes, self.num_classes)
        labels = self.trained_labels
        if self.reduce_zero_label is not None:
            labels = replace(labels, reduce_zero_label=self.reduce_zero_label)
        if self.ignore_index is not None:
            labels = replace(labels, ignore_index=self.ignore_index)
        return with_label_map(labels, self.label_map) if self.label_map else labels

    def find_pairs(self, split: Split) -> Pairing:
        """The files of a split, and what among them does not pair up.

        Raises:
            DataError: if a folder is missing or empty.
        """
        name = self.folders[split]
        try:
            return self.layout.pair(self.root, name)
        except DataError as error:
            raise DataError(f"{error}. {self.layout.describe([*self.folders.values()])}{self._hint(split)}") from None

    def make_dataset(self, split: Split) -> SegmentationDataset:
        """Pair the photos and masks of a split.

        Raises:
            ValueError: if an option is out of its range.
            DataError: if a folder is missing or empty, or photos and masks do not pair up.
        """
        pairing, name = self.find_pairs(split), self.folders[split]
        try:
            samples = require_pairs(
                pairing, self.layout.image_folder(self.root, name), self.layout.mask_folder(self.root, name)
            )
        except DataError as error:
            raise DataError(f"{error}. {self.layout.describe([*self.folders.values()])}") from None
        return SegmentationDataset(samples, self.labels, self._transform(split))

    def heaviest(self, split: Split) -> list[int]:
        """Training crops are of one size; of an evaluation the photos with the most pixels, which the scores need.

        Raises:
            DataError: if a photo cannot be read.
        """
        if split == "train":
            return super().heaviest(split)
        dataset = self.datasets[split]
        assert isinstance(dataset, SegmentationDataset)
        headers = [read_header(photo) for photo, _ in dataset.samples]
        pixels = [header.width * header.height for header in headers]
        return sorted(range(len(pixels)), key=pixels.__getitem__, reverse=True)[: self.eval_batch_size]

    def check(self, progress: Callable[[int, int], object] = lambda done, total: None) -> SegmentationReport:
        """Read every file of every split, as :func:`flatten_dense.data.checks.check_data`."""
        return check_data(self, progress)

    def _transform(self, split: Split) -> SegmentationTrainTransform | EvalTransform:
        if split != "train":
            return EvalTransform(self.input_format)
        return SegmentationTrainTransform(
            scale=self.train_scale,
            ratio_range=self.ratio_range,
            crop_size=self.crop_size,
            max_class_share=self.max_class_share,
            flip=self.flip,
            photometric=self.photometric,
            normalization=self.normalization,
            ignore_index=self.labels.ignore_index,
        )

    def _hint(self, split: Split) -> str:
        present = [name for name in self.folders.values() if self.layout.has_masks(self.root, name)]
        if split != "test" or self.folders["test"] in present or not present:
            return ""
        return (
            f". `test` reads the split {self.folders['test']!r}; choose another with --data.test_split, for example "
            f"--data.test_split {present[-1]}. Photos without masks are for `predict`"
        )


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Photos with their masks.

    Args:
        samples: (photo, mask) files.
        labels: what the values in the masks mean.
        transform: the training transform changes both image and mask, the evaluation transform only the image.
    """

    def __init__(
        self,
        samples: Sequence[tuple[Path, Path]],
        labels: LabelSpace,
        transform: SegmentationTrainTransform | EvalTransform,
    ) -> None:
        self.samples = samples
        self.labels = labels
        self.transform = transform
        self._index_of_byte = labels.from_disk(torch.arange(256))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load one sample: float32 image ``[3, h, w]``, int64 mask, and the photo's path.

        Raises:
            DataError: if a file cannot be read, the sizes differ, or the mask holds values outside the classes.
        """
        image, mask = self.load(index)
        if isinstance(self.transform, SegmentationTrainTransform):
            image, mask = self.transform(image, mask)
        else:
            image = self.transform(image)
        return {"image": image, "mask": mask.to(torch.int64), "path": str(self.samples[index][0])}

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Read and check one pair: uint8 photo ``[3, H, W]``, class indices ``[H, W]``.

        The indices are uint8 if the file's values are, which spares much time on large masks, else int64.
        """
        image_path, mask_path = self.samples[index]
        image, values = read_image(image_path), read_label_values(mask_path, self.labels)
        if image.shape[-2:] != values.shape:
            raise DataError(_sizes_differ(image_path, image, mask_path, values))
        mask = self._look_up(values) if values.dtype == torch.uint8 else None
        if mask is None:
            mask = self.labels.from_disk(values)
            outside = outside_classes(mask, self.labels)
            if outside.any():
                raise DataError(values_outside(mask_path, values, outside, self.labels))
        return image, mask

    def _look_up(self, values: Tensor) -> Tensor | None:
        """Class indices in 8 bits; None if some value is none, or they need more bits."""
        occurring = self._index_of_byte[torch.bincount(values.flatten(), minlength=256) > 0]
        if outside_classes(occurring, self.labels).any() or self.labels.ignore_index > 255:
            return None
        # A byte string translates ten times as fast as a tensor is indexed.
        table = bytes((self._index_of_byte & 255).tolist())
        translated = bytearray(values.numpy().tobytes().translate(table))
        return torch.frombuffer(translated, dtype=torch.uint8).view(values.shape)


def _sizes_differ(image_path: Path, image: Tensor, mask_path: Path, mask: Tensor) -> str:
    height, width = image.shape[-2:]
    message = (
        f"{image_path} is {width}x{height} pixels, but its mask {mask_path} is {mask.shape[1]}x{mask.shape[0]}; "
        "a mask must have its photo's size"
    )
    if (width, height) == tuple(mask.shape):
        message += (
            ". The sides are swapped: photos are turned upright by their EXIF tag, so the mask must be upright too"
        )
    return message
