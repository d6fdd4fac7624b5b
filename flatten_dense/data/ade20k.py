"""Semantic segmentation data in the layout of ADE20K: a folder of photos beside a folder of index masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from flatten_dense.data.base import BaseDataModule, Split
from flatten_dense.data.class_list import check_same_classes, first_few, read_labels
from flatten_dense.data.images import DataError, list_images, read_image, read_mask
from flatten_dense.data.transforms import SegmentationEvalTransform, SegmentationTrainTransform
from flatten_dense.structures import InputFormat, LabelSpace, Normalization

_LAYOUT = (
    "Expected layout: ROOT/images/{training,validation,test}/NAME.jpg (or another image type) and "
    "ROOT/annotations/{training,validation,test}/NAME.png, not in further subfolders"
)


class ADE20KDataModule(BaseDataModule):
    """Photos in ``root/images/SPLIT``, index masks of the same stem in ``root/annotations/SPLIT``.

    The splits are the folders ``training`` and ``validation``, and for tests the one named by ``test_split``.

    Args:
        root: folder that holds ``images`` and ``annotations``; only read, never written to.
        classes: class list: a name per line, or a table with the columns Idx and Name, such as ADE20K's. By default
            ``classes.txt`` or ``objectInfo150.txt`` in ``root``, if there.
        num_classes: number of classes; checked against the class list, or names "class 1" and so on without one.
        reduce_zero_label: masks hold 0 for unlabelled and 1..K for the classes (ADE20K), instead of 0..K-1.
        ignore_index: label value of pixels that neither loss nor metric counts.
        labels: of a trained model, in place of the four options above; those must not contradict it.
        test_split: folder that ``test`` reads; the official ADE20K test set has no masks, so use validation there.
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
    """

    def __init__(
        self,
        root: Path,
        classes: Path | None = None,
        num_classes: int | None = None,
        reduce_zero_label: bool = False,
        ignore_index: int = 255,
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
    ) -> None:
        super().__init__(
            InputFormat(eval_scale, normalization or Normalization()), batch_size, eval_batch_size, num_workers
        )
        self.root = Path(root).expanduser()
        self.classes = classes
        self.num_classes = num_classes
        self.reduce_zero_label = reduce_zero_label
        self.ignore_index = ignore_index
        self.trained_labels = labels
        self.folders: dict[Split, str] = {"train": "training", "val": "validation", "test": test_split}
        self.train_scale = train_scale
        self.ratio_range = ratio_range
        self.crop_size = crop_size
        self.max_class_share = max_class_share
        self.flip = flip
        self.photometric = photometric

    def make_labels(self) -> LabelSpace:
        """Take the given labels, or read the class list."""
        if self.trained_labels is None:
            return read_labels(self.root, self.classes, self.num_classes, self.reduce_zero_label, self.ignore_index)
        check_same_classes(self.root, self.trained_labels, self.classes, self.num_classes)
        return self.trained_labels

    def make_dataset(self, split: Split) -> "SegmentationDataset":
        """Pair the photos and masks of a split.

        Raises:
            ValueError: if an option is out of its range.
            DataError: if a folder is missing or empty, or photos and masks do not pair up.
        """
        folder = self.folders[split]
        try:
            samples = pair_by_stem(self.root / "images" / folder, self.root / "annotations" / folder)
        except DataError as error:
            raise DataError(f"{error}{self._split_hint(split)}") from None
        return SegmentationDataset(samples, self.labels, self._transform(split))

    def _transform(self, split: Split) -> SegmentationTrainTransform | SegmentationEvalTransform:
        if split != "train":
            return SegmentationEvalTransform(self.input_format.scale, self.normalization)
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

    def _split_hint(self, split: Split) -> str:
        masks = self.root / "annotations"
        present = [name for name in self.folders.values() if any((masks / name).glob("*.png"))]
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
        transform: SegmentationTrainTransform | SegmentationEvalTransform,
    ) -> None:
        self.samples = samples
        self.labels = labels
        self.transform = transform

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
        return {"image": image, "mask": mask, "path": str(self.samples[index][0])}

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Read and check one pair: uint8 photo ``[3, H, W]``, int64 class indices ``[H, W]``."""
        image_path, mask_path = self.samples[index]
        image, values = read_image(image_path), read_mask(mask_path)
        if image.shape[-2:] != values.shape:
            raise DataError(_sizes_differ(image_path, image, mask_path, values))
        mask = self.labels.from_disk(values)
        outside = ((mask < 0) | (mask >= self.labels.num_classes)) & (mask != self.labels.ignore_index)
        if outside.any():
            raise DataError(_values_outside(mask_path, torch.unique(values[outside]).tolist(), self.labels))
        return image, mask


def pair_by_stem(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Match the files of two folders by their names without suffix.

    Args:
        images: folder of images of any type.
        masks: folder of ``.png`` masks.

    Returns:
        (image, mask) pairs, sorted by name.

    Raises:
        DataError: one message about everything that does not pair up, or that a folder is missing or empty.
    """
    missing = [folder for folder in (images, masks) if not folder.is_dir()]
    if missing:
        folders = " and ".join(str(folder) for folder in missing)
        raise DataError(f"{folders}: no such folder. {_LAYOUT}")
    found_images = list_images(images)
    found_masks = [path for path in list_images(masks) if path.suffix.lower() == ".png"]
    image_of = {path.stem: path for path in found_images}
    mask_of = {path.stem: path for path in found_masks}
    problems = [
        _problem("image(s) without a mask", [path.name for path in found_images if path.stem not in mask_of]),
        _problem("mask(s) without an image", [path.name for path in found_masks if path.stem not in image_of]),
        _problem("image(s) of a stem that another has", _repeated(found_images)),
        _problem("mask(s) of a stem that another has", _repeated(found_masks)),
    ]
    if any(problems):
        raise DataError(
            f"the images in {images} and the masks in {masks} do not pair up:\n  "
            + "\n  ".join(filter(None, problems))
            + f"\nAdd the missing files, or move the others away. {_LAYOUT}"
        )
    return [(image_of[stem], mask_of[stem]) for stem in sorted(image_of)]


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


def _values_outside(path: Path, values: list[int], labels: LabelSpace) -> str:
    count = labels.num_classes
    expected = f"0 (unlabelled), 1..{count}" if labels.reduce_zero_label else f"0..{count - 1}"
    message = (
        f"{path}: the mask holds {first_few(values)}, outside the {count} classes; "
        f"expected {expected}, or {labels.ignore_index} for unlabelled. "
    )
    if values == [count] and not labels.reduce_zero_label:
        return message + "If 0 means unlabelled and classes count from 1, set --data.reduce_zero_label true"
    return message + "Correct the mask, or the class list (--data.classes, --data.num_classes)"


def _repeated(paths: list[Path]) -> list[str]:
    stems = [path.stem for path in paths]
    twice = {stem for before, stem in zip(sorted(stems), sorted(stems)[1:], strict=False) if before == stem}
    return [path.name for path in paths if path.stem in twice]


def _problem(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}: {first_few(names)}" if names else ""
