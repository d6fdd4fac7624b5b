"""Detection data in COCO's layout: a folder of photos and a json file for each split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flatten_dense.data.base import Split
from flatten_dense.data.detection.coco_json import inspect_coco
from flatten_dense.data.detection.datamodule import DetectionDataModule
from flatten_dense.data.detection.faults import SplitReading
from flatten_dense.data.images import DataError, first_few


class CocoDataModule(DetectionDataModule):
    """COCO, or any data set with COCO's json files. Further options are those of DetectionDataModule.

    Args:
        root: folder of the data set; only read, never written to.
        train_images: folder of the training photos in ``root``.
        train_annotations: json file in ``root``.
        val_images: folder of the validation photos in ``root``.
        val_annotations: json file in ``root``.
        test_images: folder of the photos that ``test`` reads, in ``root``; None is that of validation.
        test_annotations: json file in ``root``; None is that of validation.
    """

    def __init__(
        self,
        root: Path,
        train_images: str = "train2017",
        train_annotations: str = "annotations/instances_train2017.json",
        val_images: str = "val2017",
        val_annotations: str = "annotations/instances_val2017.json",
        test_images: str | None = None,
        test_annotations: str | None = None,
        **options: Any,  # noqa: ANN401 - jsonargparse finds the base class's options, so they keep one place
    ) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.files: dict[Split, tuple[str, str]] = {
            "train": (train_images, train_annotations),
            "val": (val_images, val_annotations),
            "test": (test_images or val_images, test_annotations or val_annotations),
        }

    def inspect_split(self, split: Split) -> SplitReading:
        """Read the json file of a split.

        Raises:
            DataError: if the file or the folder of the photos is missing, or the file is not JSON of COCO's sections.
        """
        images, annotations = (self.root / name for name in self.files[split])
        for option, path in (("annotations", annotations), ("images", images)):
            if not path.exists():
                raise DataError(
                    f"{path}: not there; --data.{split}_{option} says where it is in --data.root{self._hint()}"
                )
        return inspect_coco(annotations, images)

    def _hint(self) -> str:
        if not self.root.is_dir():
            return f", and {self.root} is no folder"
        found = [
            path.relative_to(self.root) for path in sorted([*self.root.glob("*.json"), *self.root.glob("*/*.json")])
        ]
        return f". There are {first_few(found)}" if found else ", where no json file is to be found"
