"""Photos without truth, for `predict`."""

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flatten_dense.data.images import DataError, list_images, read_image
from flatten_dense.data.rasters import TIFF_SUFFIXES, LargeTiff, tiff_pixels
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.structures import InputFormat, Labels

_KEYS = ("image", "photo", "size", "name", "path")


class PhotoDataset(Dataset[dict[str, Any]]):
    """One photo an item; one that cannot be read gives its message instead, so that the others go on.

    A TIFF of more than ``max_pixels`` is not read here: its item is a handle that is read in windows.
    """

    def __init__(self, paths: list[Path], input_format: InputFormat, max_pixels: int) -> None:
        self.paths = paths
        self.max_pixels = max_pixels
        self.names = _output_names(paths)
        self.transform = EvalTransform(input_format)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.paths[index]
        try:
            photo = self._read(path)
        except DataError as error:
            return {"failed": str(error)}
        if isinstance(photo, LargeTiff):
            return {"large": photo, "name": self.names[index]}
        size = (photo.shape[-2], photo.shape[-1])
        names = {"name": self.names[index], "path": str(path)}
        return {"image": self.transform(photo), "photo": photo, "size": size, **names}

    def _read(self, path: Path) -> Tensor | LargeTiff:
        if path.suffix.lower() not in TIFF_SUFFIXES or tiff_pixels(path) <= self.max_pixels:
            return read_image(path)
        try:
            return LargeTiff(path)
        except DataError as refusal:
            # Pillow knows more kinds of TIFF: turned ones, scans of one bit. It says less about those it cannot read.
            with contextlib.suppress(DataError):
                return read_image(path)
            raise refusal


class PhotoDataModule(LightningDataModule):
    """A photo, or a folder of photos.

    Args:
        input: a file or a folder.
        labels: of the model that predicts.
        input_format: of the model that predicts.
        batch_size: photos at a time; those of equal size run together.
        num_workers: processes that read photos.

    Attributes:
        max_pixels: a TIFF with more than this is read in windows; `predict` takes the model's `inference.max_pixels`.
    """

    max_pixels: int = 2048 * 2048

    def __init__(
        self,
        input: Path,
        labels: Labels | None = None,
        input_format: InputFormat | None = None,
        batch_size: int = 1,
        num_workers: int = 1,
    ) -> None:
        super().__init__()
        self.input = Path(input)
        self.labels = labels
        self.input_format = input_format or InputFormat()
        self.batch_size = batch_size
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """Find the photos.

        Raises:
            DataError: if there are none.
        """
        self.dataset = PhotoDataset(list_images(self.input), self.input_format, self.max_pixels)

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of lists.

        Photos: image, photo as read, size, name and path. Large TIFFs: large and large_name. Messages about photos that
        cannot be read: failed.
        """
        return DataLoader(self.dataset, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=_collate)


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    read = [sample for sample in samples if "photo" in sample]
    large = [sample for sample in samples if "large" in sample]
    batch: dict[str, Any] = {key: [sample[key] for sample in read] for key in _KEYS}
    batch |= {"large": [sample["large"] for sample in large], "large_name": [sample["name"] for sample in large]}
    return {**batch, "failed": [sample["failed"] for sample in samples if "failed" in sample]}


def _output_names(paths: list[Path]) -> list[str]:
    """Stems; the whole file name where two photos share a stem, so that neither overwrites the other."""
    uses = Counter(path.stem for path in paths)
    names = [path.name if uses[path.stem] > 1 else path.stem for path in paths]
    return names if len(set(names)) == len(names) else [path.name for path in paths]
