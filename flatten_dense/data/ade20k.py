"""Semantic segmentation data in the layout of ADE20K: a folder of photos beside a folder of index masks."""

from flatten_dense.data.pairs import FolderLayout
from flatten_dense.data.segmentation import SegmentationDataModule


class ADE20KDataModule(SegmentationDataModule):
    """Photos in ``root/images/SPLIT``, index masks of the same stem in ``root/annotations/SPLIT``.

    The splits are the folders ``training`` and ``validation``, and for tests the one named by ``test_split``: the
    official ADE20K test set has no masks, so use validation there. All options are those of SegmentationDataModule.
    """

    layout = FolderLayout("images/{split}", "annotations/{split}")
    train_split = "training"
    val_split = "validation"
