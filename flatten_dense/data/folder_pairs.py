"""Semantic segmentation data in two folders of one's own: CamVid, PASCAL VOC, Cityscapes and the like."""

from pathlib import Path
from typing import Any

from flatten_dense.data.pairs import FolderLayout
from flatten_dense.data.segmentation import SegmentationDataModule


class FolderPairsDataModule(SegmentationDataModule):
    """A folder of photos and a folder of masks, whose files have the same names up to a suffix.

    Subfolders are searched. In the folders and in ``split_lists``, ``{split}`` stands for the name of a split.
    Further options are those of SegmentationDataModule.

    Args:
        root: folder of the data set; only read, never written to.
        images: folder of the photos in ``root``, such as ``leftImg8bit/{split}``.
        masks: folder of the masks in ``root``, such as ``gtFine/{split}``.
        image_suffix: how photos end, such as ``_leftImg8bit.png``; by default every image file is a photo.
        mask_suffix: how masks end, such as ``_gtFine_labelIds.png`` or ``_L``; by default every PNG file is a mask.
        split_lists: file in ``root`` with the names of a split, such as ``ImageSets/Segmentation/{split}.txt``; by
            default a split is what its folder holds.
        train_split: the split to train on.
        val_split: the split to validate on.
    """

    def __init__(
        self,
        root: Path,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        image_suffix: str = "",
        mask_suffix: str = "",
        split_lists: str | None = None,
        train_split: str = "train",
        val_split: str = "val",
        **options: Any,  # noqa: ANN401 - jsonargparse finds the base class's options, so they keep one place
    ) -> None:
        super().__init__(root, **options)
        self.layout = FolderLayout(images, masks, image_suffix, mask_suffix, split_lists)
        self.train_split = train_split
        self.val_split = val_split
