"""Photos in a folder per class, as ImageNet is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from flatten_dense.data.base import Split
from flatten_dense.data.classification.checks import FolderReading, check_classification
from flatten_dense.data.classification.classification_report import ClassificationReport
from flatten_dense.data.classification.datamodule import (
    IMAGENET_EVALUATION,
    ClassificationDataModule,
    ImageTransform,
    require_known,
    sample,
)
from flatten_dense.data.classification.transforms import Augmentation
from flatten_dense.data.images import IMAGE_SUFFIXES, DataError, first_few, read_image
from flatten_dense.structures import ClassLabels, InputFormat


class ImageFolderDataset(Dataset[dict[str, Any]]):
    """Photos of a split, sorted by class and name.

    Args:
        root: holds a folder per class; photos may lie deeper in it.
        labels: the classes; one may be without a photo.
        transform: of a photo.

    Raises:
        DataError: if there is no photo, or a class that ``labels`` does not have.
    """

    def __init__(self, root: Path, labels: ClassLabels, transform: ImageTransform) -> None:
        require_known(set(class_folders(root)), labels, root)
        self.samples = [
            (path, index)
            for index, name in enumerate(labels.class_names)
            if (root / name).is_dir()
            for path in photos_below(root / name)
        ]
        if not self.samples:
            raise DataError(
                f"{root}: no image in the folders of the classes; expected files ending in {' '.join(IMAGE_SUFFIXES)}"
            )
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load one sample: float32 image ``[3, h, w]``, class index, path.

        Raises:
            DataError: if the file cannot be read.
        """
        path, label = self.samples[index]
        return sample(self.transform(read_image(path)), label, str(path))


class ImageFolderDataModule(ClassificationDataModule):
    """A folder per split, in it a folder per class that is named so: ImageNet's layout, torchvision's ImageFolder.

    Args:
        root: holds the folders of the splits; only read, never written to.
        labels: of a trained model; the data must have the same classes.
        train_folder: of the training photos; its folders, sorted, are the classes.
        val_folder: of the validation photos.
        test_folder: of the photos that ``test`` reads.
        augmentation: how photos become training images.
        input_format: how evaluation images are resized and cropped, and all normalised. The default squashes to 256 x
            256 and takes the middle 224 x 224, as the published figures of FLatten Transformer were measured; with
            ``resize: short_side`` the aspect ratio is kept, as is usual elsewhere.
        batch_size: training images per step and process.
        eval_batch_size: images per validation or test batch.
        num_workers: processes that load data; None leaves one CPU to training and takes the others, at most 8.
    """

    def __init__(
        self,
        root: Path,
        labels: ClassLabels | None = None,
        train_folder: str = "train",
        val_folder: str = "val",
        test_folder: str = "val",
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
        input_format: InputFormat = IMAGENET_EVALUATION,
        batch_size: int = 128,
        eval_batch_size: int = 64,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(labels, augmentation, input_format, batch_size, eval_batch_size, num_workers)
        self.root = Path(root).expanduser()
        self.folders: dict[Split, str] = {"train": train_folder, "val": val_folder, "test": test_folder}

    def read_class_names(self) -> tuple[str, ...]:
        """Names of the folders of the training split, sorted."""
        return tuple(class_folders(self._split_root("train")))

    def make_dataset(self, split: Split) -> ImageFolderDataset:
        """Find the photos of a split; they are opened only when they are needed."""
        transform = self.transform(split)
        return ImageFolderDataset(self._split_root(split), self.labels, transform)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of training images."""
        return self.augmentation.size

    def inspect_split(self, split: Split) -> FolderReading:
        """List the files of a split, also those that are not where they should be.

        Raises:
            DataError: if there is no folder of a class.
        """
        root = self._split_root(split)
        files = {name: files_below(root / name) for name in class_folders(root)}
        photos = {name: [path for path in own if _is_image(path.name)] for name, own in files.items()}
        others = [path for own in files.values() for path in own if not _is_image(path.name)]
        beside = [path for path in root.iterdir() if path.is_file() and not path.name.startswith(".")]
        return FolderReading(root, photos, others, sorted(path for path in beside if _is_image(path.name)))

    def check(self, progress: Callable[[int, int], object] = lambda done, total: None) -> ClassificationReport:
        """Read all photos, as :func:`flatten_dense.data.classification.checks.check_classification`."""
        return check_classification(self, progress)

    def _split_root(self, split: Split) -> Path:
        return self.root / self.folders[split]


def class_folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: if it is missing, or holds no folder.
    """
    layout = "expected ROOT/train/CLASS/NAME.jpg and ROOT/val/CLASS/NAME.jpg, one folder for each class"
    try:
        with os.scandir(root) as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        above = root.parent
        beside = sorted(path.name for path in above.iterdir()) if above.is_dir() else []
        there = f"{above} holds {first_few(beside) or 'nothing'}" if above.is_dir() else f"there is no {above} either"
        raise DataError(
            f"{root}: no such folder; {layout}; {there}. Other names: --data.train_folder, --data.val_folder, "
            "--data.test_folder"
        ) from None
    except OSError as error:
        raise DataError(f"{root}: the folder cannot be listed ({error.strerror}); {layout}") from None
    names = sorted(name for name, is_folder in found if is_folder)
    if not names:
        raise DataError(f"{root}: holds no folder, only {len(found)} files; {layout}")
    return names


def photos_below(folder: Path) -> Sequence[Path]:
    """The images in a folder and the folders in it, sorted by path, without hidden ones."""
    return [path for path in files_below(folder) if _is_image(path.name)]


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and the folders in it, sorted by path, without hidden ones."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)
