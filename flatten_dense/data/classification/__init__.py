"""Classification data; importing this package makes its data modules known to the command line."""

from flatten_dense.data.classification.datamodule import ClassificationDataModule
from flatten_dense.data.classification.image_folder import ImageFolderDataModule
from flatten_dense.data.classification.shards import ShardDataModule

__all__ = ["ClassificationDataModule", "ImageFolderDataModule", "ShardDataModule"]
