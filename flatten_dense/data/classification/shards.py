"""Photos in shards, for sets that are too many files for a disk or too large for a machine."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Sampler

from flatten_dense.data.base import Split
from flatten_dense.data.classification.datamodule import (
    IMAGENET_EVALUATION,
    ClassificationDataModule,
    ImageTransform,
    require_known,
    sample,
)
from flatten_dense.data.classification.shard_files import ShardedPhoto, ShardIndex, read_shard
from flatten_dense.data.classification.shard_sampler import ShardOrderSampler, ShardSampler
from flatten_dense.data.classification.transforms import Augmentation
from flatten_dense.data.images import decode_image
from flatten_dense.structures import ClassLabels, InputFormat


class ShardDataset(Dataset[dict[str, Any]]):
    """Photos of a split, in the order of the shards.

    Args:
        folder: that holds the shards, or its URL.
        labels: the classes; they may come in another order than in the shards.
        transform: of a photo.
        kept: shards that stay in memory, the last that were used.

    Raises:
        DataError: if the index cannot be read, or names a class that ``labels`` does not have.
    """

    def __init__(self, folder: str, labels: ClassLabels, transform: ImageTransform, kept: int) -> None:
        self.folder = folder
        self.index = ShardIndex.read(folder)
        require_known(set(self.index.classes), labels, folder)
        self.counts = [shard.samples for shard in self.index.shards]
        self.transform = transform
        self.kept = kept
        self._label_of = [labels.class_names.index(name) for name in self.index.classes]
        self._ends = list(accumulate(self.counts))
        self._shards: OrderedDict[int, list[ShardedPhoto]] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load one sample: float32 image ``[3, h, w]``, class index, path.

        Raises:
            DataError: if the shard or the photo cannot be read.
        """
        number = bisect_right(self._ends, index)
        photo = self._shard(number)[index - self._ends[number]]  # counted from the shard's end
        return sample(self.transform(decode_image(photo.content, photo.path)), self._label_of[photo.label], photo.path)

    def _shard(self, number: int) -> list[ShardedPhoto]:
        if number not in self._shards:
            while len(self._shards) >= self.kept:
                self._shards.popitem(last=False)
            self._shards[number] = read_shard(self.folder, self.index.shards[number], len(self.index.classes))
        self._shards.move_to_end(number)
        return self._shards[number]


class ShardDataModule(ClassificationDataModule):
    """A folder of shards per split, in WebDataset's format, as ``flatten-dense make-shards`` writes them.

    Args:
        root: holds the folders of the splits, or is the URL above them (https://, hf://, gs://); only read.
        labels: of a trained model; the data must have the same classes.
        train_folder: of the training shards, whose index says which classes there are.
        val_folder: of the validation shards.
        test_folder: of the shards that ``test`` reads.
        mixed_shards: over how many shards the training photos of one are spread. Each worker holds one shard more in
            memory.
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
        root: str,
        labels: ClassLabels | None = None,
        train_folder: str = "train",
        val_folder: str = "val",
        test_folder: str = "val",
        mixed_shards: int = 4,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
        input_format: InputFormat = IMAGENET_EVALUATION,
        batch_size: int = 128,
        eval_batch_size: int = 64,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(labels, augmentation, input_format, batch_size, eval_batch_size, num_workers)
        self.root = root if "://" in root else str(Path(root).expanduser())
        self.folders: dict[Split, str] = {"train": train_folder, "val": val_folder, "test": test_folder}
        self.mixed_shards = mixed_shards
        self._readers = max(1, self.num_workers)

    def read_class_names(self) -> tuple[str, ...]:
        """What the index of the training shards says."""
        return ShardIndex.read(self._split_root("train")).classes

    def setup(self, stage: str) -> None:
        """Read the indices of the splits that a stage needs.

        Raises:
            ValueError: if an option is out of its range, or the shards are not as they must be (DataError).
        """
        if self.mixed_shards < 1:
            raise ValueError(f"--data.mixed_shards must be at least 1, got {self.mixed_shards}")
        super().setup(stage)

    def make_dataset(self, split: Split) -> ShardDataset:
        """Find out what the shards of a split hold; they are opened only when they are needed."""
        kept = self.mixed_shards if split == "train" else 1
        return ShardDataset(self._split_root(split), self.labels, self.transform(split), kept + 1)

    def make_sampler(self, processes: int, rank: int) -> ShardSampler:
        """Shards of its own for each process and worker."""
        counts = self._dataset("train").counts
        return ShardSampler(counts, self.batch_size, processes, rank, self._readers, self.mixed_shards)

    def make_evaluation_sampler(self, split: Split, processes: int, rank: int) -> Sampler[int]:
        """The same, in the order of the shards."""
        num_photos = len(self._dataset(split))
        return ShardOrderSampler(num_photos, self.eval_batch_size, processes, rank, max(1, self.num_workers))

    def state_dict(self) -> dict[str, Any]:
        """How far training has come, and what the order depends on."""
        state = super().state_dict()
        return {**state, "readers": self._readers} if state else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next training there, in the order that it had."""
        self._readers = state_dict.get("readers", self._readers)
        super().load_state_dict(state_dict)

    def _dataset(self, split: Split) -> ShardDataset:
        dataset = self.datasets[split]
        assert isinstance(dataset, ShardDataset)
        return dataset

    def _split_root(self, split: Split) -> str:
        return f"{self.root.rstrip('/')}/{self.folders[split]}"
