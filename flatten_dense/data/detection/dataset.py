"""Photos with boxes, classes and masks of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.categories import align_labels
from flatten_dense.data.detection.copy_paste import Sample, paste_objects
from flatten_dense.data.detection.packed_list import PackedList
from flatten_dense.data.detection.records import PhotoRecord, photo_records, trainable_records
from flatten_dense.data.detection.transforms import DetectionTrainTransform
from flatten_dense.data.images import DataError, read_header, read_image
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.structures import DetectionLabels


class DetectionDataset(Dataset[dict[str, Any]]):
    """The photos of a split with their objects.

    With a training transform, photos are left out that have no usable object (of at least a pixel, no crowd; with masks
    one that has a mask) or a side below 32 pixels. With an evaluation transform all are there, in the file's order.

    Args:
        annotations: of the split.
        labels: the classes, in the order of their indices; the categories of the annotations go by their names.
        transform: training items are changed with their objects; of evaluation items only the image is.
        with_masks: whether items have masks.
        keep_empty: keep training photos without a usable object.
        copy_paste: probability that a training item gets objects of another one pasted in, cut out by their masks.

    Attributes:
        annotations: as given; a copy that is sent to a worker process has None.
        labels: the classes, with the category ids of this split's file.
        sizes: (height, width) of each item's photo.

    Raises:
        ValueError: if ``copy_paste`` is no probability.
        DataError: if the annotations hold a class that ``labels`` lack, or nothing is left to train on.
    """

    annotations: DetectionAnnotations | None

    def __init__(
        self,
        annotations: DetectionAnnotations,
        labels: DetectionLabels,
        transform: DetectionTrainTransform | EvalTransform,
        with_masks: bool = False,
        keep_empty: bool = False,
        copy_paste: float = 0.0,
    ) -> None:
        if not 0 <= copy_paste <= 1:
            raise ValueError(f"copy_paste must be a probability between 0 and 1, got {copy_paste}")
        self.annotations = annotations
        self.labels = align_labels(labels, annotations)
        self.transform = transform
        self.with_masks = with_masks
        self.copy_paste = copy_paste
        self.image_folder = annotations.image_folder
        photos = photo_records(annotations, self.labels)
        if isinstance(transform, DetectionTrainTransform):
            photos = trainable_records(photos, self._needs_masks, keep_empty)
            if not photos:
                raise DataError(
                    f"{annotations.source}: none of its {len(annotations.images)} images can be trained on: each has a "
                    f"side below 32 pixels, or no object of at least a pixel{' with a mask' * self._needs_masks}, "
                    "crowds aside. Correct the annotations; `flatten-dense check-data` says more about them"
                )
        self.sizes = [photo.size for photo in photos]
        self._photos = PackedList(photos)

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load one sample.

        Returns:
            ``image``, normalised float32 ``[3, h, w]``; ``target`` as :meth:`Instances.training_target` or
            ``evaluation_target``; ``image_id`` of the user's file; ``path``. In evaluation also ``size``, (height,
            width) of the photo.

        Raises:
            DataError: if the photo cannot be read or is not of the annotated size.
        """
        photo = self._photos[index]
        item = {"image_id": photo.image_id, "path": str(self.image_folder / photo.file_name)}
        if isinstance(self.transform, DetectionTrainTransform):
            image, target = self._training_sample(index, self.transform)
            return {"image": self.transform.normalize(image), "target": target, **item}
        return {
            "image": self.transform(self._read(photo)),
            "size": photo.size,
            "target": photo.instances().evaluation_target(self.with_masks),
            **item,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "annotations": None}  # they are large, and no worker process needs them

    def object_counts(self) -> list[int]:
        """Number of objects in each item's photo, crowds included."""
        return [len(photo.objects) for photo in self._photos[:]]

    @property
    def _needs_masks(self) -> bool:
        return self.with_masks or self.copy_paste > 0

    def _training_sample(self, index: int, transform: DetectionTrainTransform) -> Sample:
        image, target = self._augmented(index, transform)
        if self.copy_paste and float(torch.rand(())) < self.copy_paste:
            source = self._augmented(int(torch.randint(len(self), ())), transform)
            image, target = paste_objects(image, target, source)
        if not self.with_masks:
            target.pop("masks", None)
        return image, target

    def _augmented(self, index: int, transform: DetectionTrainTransform) -> Sample:
        photo = self._photos[index]
        image, pixel_map = transform(self._read(photo))
        return image, photo.instances().training_target(pixel_map, self._needs_masks)

    def _read(self, photo: PhotoRecord) -> Tensor:
        path = self.image_folder / photo.file_name
        image = read_image(path)
        if image.shape[-2:] != photo.size:
            raise DataError(_sizes_differ(path, image, photo))
        return image


def _sizes_differ(path: Path, image: Tensor, photo: PhotoRecord) -> str:
    (height, width), (annotated_height, annotated_width) = image.shape[-2:], photo.size
    message = (
        f"{path} is {width}x{height} pixels, but its annotations say {annotated_width}x{annotated_height} (image id "
        f"{photo.image_id}); boxes would be in the wrong place"
    )
    if (height, width) == (annotated_width, annotated_height) and read_header(path).orientation != 1:
        return (
            f"{message}. The sides are swapped: the photo is turned upright by its EXIF tag, but was annotated as it "
            "is stored. Save the photo without its EXIF rotation, or turn the annotations"
        )
    return f"{message}. Use the photos that were annotated, or correct width and height and the boxes with them"
