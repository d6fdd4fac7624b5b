"""What every data module shares: loaders, collation, and the facts about the data that a task needs."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, default_collate

from flatten_dense.data.sampler import EpochSampler
from flatten_dense.data.seeded import SeededDataset
from flatten_dense.data.workers import outlive_sigterm
from flatten_dense.structures import InputFormat, Labels, Normalization

Split = Literal["train", "val", "test"]

_SPLITS_OF_STAGE: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": (),
}
_MOST_WORKERS = 8


def collate_lists(samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Batch samples whose images differ in size: every field becomes a list."""
    return {key: [sample[key] for sample in samples] for key in samples[0]}


class UnrepeatedSampler(DistributedSampler[Any]):
    """Deals a set out to several processes in turn, no sample twice: scores are those of one process.

    Args:
        dataset: with at least one sample a process.
        num_replicas: processes.
        rank: of this process.
    """

    def __iter__(self) -> Iterator[int]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)

    @property
    def _own(self) -> range:
        return range(self.rank, len(self.dataset), self.num_replicas)  # type: ignore[arg-type]


class BaseDataModule(LightningDataModule, ABC):
    """Loaders over the data sets that a subclass makes in :meth:`make_dataset`.

    Training batches are shuffled and stacked, evaluation batches are lists. An incomplete last training batch is left
    out, unless the whole set is smaller than a batch: then the set is the batch. What is in a training batch follows
    from the run's seed alone, however many workers load it; a resumed run goes on with the batch after the last.

    The constructor reads and checks nothing: inside it, jsonargparse would bury our message in its own. A subclass has
    an argument ``labels``, those of its task or None, in which `validate` and `test` hand over those of the checkpoint.

    Args:
        input_format: how evaluation images are resized, and all images normalised.
        batch_size: training images per step and process.
        eval_batch_size: images per validation or test batch.
        num_workers: processes that load data; None leaves one CPU to training and takes the others, at most 8.
    """

    labels_type: type[Labels]
    """Of the labels; tells which tasks can learn from the data."""

    collate_train: Callable[[list[dict[str, Any]]], dict[str, Any]] = staticmethod(default_collate)
    collate_eval: Callable[[list[dict[str, Any]]], dict[str, Any]] = staticmethod(collate_lists)

    def __init__(
        self, input_format: InputFormat, batch_size: int, eval_batch_size: int, num_workers: int | None
    ) -> None:
        super().__init__()
        self.input_format = input_format
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = _free_cpus() if num_workers is None else num_workers
        self.datasets: dict[Split, Dataset[dict[str, Any]]] = {}
        self._resumed: dict[str, Any] | None = None
        self._sampler: EpochSampler | None = None

    @cached_property
    def labels(self) -> Labels:
        """What the classes are called and how the files hold them, found out at the first use.

        Raises:
            DataError: if the data do not say what their classes are, or contradict the options.
        """
        return self.make_labels()

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation that images are normalised with."""
        return self.input_format.normalization

    @property
    def processes(self) -> tuple[int, int]:
        """How many processes share the work, and which of them this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    @abstractmethod
    def make_labels(self) -> Labels:
        """Find out the classes from the folder and the options; raises as :attr:`labels` does."""

    @abstractmethod
    def make_dataset(self, split: Split) -> Dataset[dict[str, Any]]:
        """Find the files of a split and check that they fit together.

        Raises:
            ValueError: if an option is out of its range, or the folder is not as it must be (DataError).
        """

    def setup(self, stage: str) -> None:
        """Make the data sets that a stage needs: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ValueError: if an option is out of its range, or the folder is not as it must be (DataError).
        """
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("num_workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--data.{name} must be at least {least}, got {getattr(self, name)}")
        for split in _SPLITS_OF_STAGE[stage]:
            if split not in self.datasets:
                self.datasets[split] = self.make_dataset(split)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled batches, such as ``{"image": [B, 3, h, w], "mask": [B, h, w], "path": B names}``."""
        self._sampler = self.make_sampler(*self.processes)
        if self._resumed is not None:
            self._sampler.start = self._resumed["epoch"], self.first_batch(self._resumed)
            self._announce(self._sampler, self._resumed)
            self._resumed = None
        return self._loader(SeededDataset(self.datasets["train"]), self.batch_size, self.collate_train, self._sampler)

    def make_sampler(self, processes: int, rank: int) -> EpochSampler:
        """What says which samples the training batches of one process are made of."""
        return EpochSampler(len(self.datasets["train"]), self.batch_size, processes, rank)  # type: ignore[arg-type]

    def batches_per_epoch(self, batch_size: int, processes: int) -> int:
        """Training batches of each of so many processes."""
        num_images: int = len(self.datasets["train"])  # type: ignore[arg-type]
        return max(1, num_images // (batch_size * processes))

    @property
    def _accumulated(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    def state_dict(self) -> dict[str, Any]:
        """How far training has come, for a checkpoint: the epoch, and of how many samples steps were taken in it."""
        if self.trainer is None or self._sampler is None:
            return {}
        # Lightning's own count of epochs depends on where in an epoch an earlier resume began.
        epoch, batches = self._sampler.epoch, self.trainer.fit_loop.epoch_loop.batch_progress
        processes, batch_size = self._sampler.num_replicas, self._sampler.batch_size
        # The gradients of batches since the last step are lost with the checkpoint.
        steps = batches.current.processed // self._accumulated  # type: ignore[attr-defined]
        samples = steps * self._accumulated * batch_size * processes
        place = {"epoch": epoch + 1, "samples": 0} if batches.is_last_batch else {"epoch": epoch, "samples": samples}
        return {**place, "batch_size": batch_size, "processes": processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next training there."""
        self._resumed = state_dict
        if self._sampler is not None and self.trainer is not None:
            # Some strategies load checkpoints after Lightning has asked for the loader: it has to ask again.
            self.trainer.fit_loop._combined_loader = None

    def first_batch(self, state_dict: dict[str, Any]) -> int:
        """The batch of the epoch that a resumed training begins with: at the beginning of a step, skipping no sample.

        Args:
            state_dict: of the training that is resumed.
        """
        if "samples" not in state_dict:
            return int(state_dict["batch"])  # as it was counted once
        processes, _ = self.processes
        steps = int(state_dict["samples"]) // (self.batch_size * processes * self._accumulated)
        # The epoch is not over, so one batch at least is left of it.
        most_steps = (self.batches_per_epoch(self.batch_size, processes) - 1) // self._accumulated
        return min(steps, most_steps) * self._accumulated

    def _announce(self, sampler: EpochSampler, state: dict[str, Any]) -> None:
        if not state.get("samples"):
            return
        batch_size, processes = sampler.batch_size, sampler.num_replicas
        again = state["samples"] - self.first_batch(state) * batch_size * processes
        if sampler.order_follows_batching and (state["batch_size"], state["processes"]) != (batch_size, processes):
            rank_zero_info(
                "Batch size or number of processes are not what they were, and the order of these data follows them: "
                "in the epoch that goes on, some images come again and some do not come."
            )
        elif again:
            rank_zero_info(f"The epoch goes on at the beginning of a step: {again} of its images come again.")

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of lists, in the order of the file names."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of lists, in the order of the file names."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: Split) -> DataLoader[dict[str, Any]]:
        dataset = self.datasets[split]
        processes, rank = self.processes
        num_images: int = len(dataset)  # type: ignore[arg-type]
        if num_images < processes:
            raise ValueError(
                f"--trainer.devices: {processes} processes cannot share {num_images} image(s); use at most {num_images}"
            )
        sampler = self.make_evaluation_sampler(split, processes, rank)
        return self._loader(dataset, self.eval_batch_size, self.collate_eval, sampler)

    def make_evaluation_sampler(self, split: Split, processes: int, rank: int) -> Sampler[int] | None:
        """What says which samples one process evaluates; None for all in their order."""
        # Lightning would repeat samples until all processes have as many.
        return UnrepeatedSampler(self.datasets[split], processes, rank) if processes > 1 else None

    def heaviest(self, split: Split) -> list[int]:
        """Samples that together make the batch of a split that costs the most time and memory.

        These are the first ones: training images are of one size unless a subclass says otherwise.
        """
        batch_size = self.batch_size if split == "train" else self.eval_batch_size
        return list(range(min(batch_size, len(self.datasets[split]))))  # type: ignore[arg-type]

    def heaviest_batch(self, split: Split) -> dict[str, Any]:
        """The batch of a split that costs the most time and memory."""
        collate = self.collate_train if split == "train" else self.collate_eval
        return collate([self.datasets[split][index] for index in self.heaviest(split)])

    def _loader(
        self,
        dataset: Dataset[dict[str, Any]],
        batch_size: int,
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
        sampler: Sampler[Any] | None,
    ) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            worker_init_fn=outlive_sigterm,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            # Else every pass over the data, validations too, would draw from the random numbers of training.
            generator=torch.Generator(),
        )


def _free_cpus() -> int:
    # A container or job scheduler may grant fewer CPUs than the machine has.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, max(1, cpus - 1))
