"""Training samples whose random numbers depend on nothing but their own seed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import Dataset

from flatten_dense.data.sampler import SampleKey


class SeededDataset(Dataset[dict[str, Any]]):
    """Makes each sample with its own seed, and leaves the random numbers of the process as they were.

    So a sample does not depend on the worker that makes it, nor on how many it made before; and training draws the
    same numbers with workers and without.

    Args:
        dataset: draws from the global generators of torch (on the CPU), numpy and Python.
    """

    def __init__(self, dataset: Dataset[dict[str, Any]]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        """The sample of an index, made with a seed."""
        if not isinstance(key, SampleKey):
            key = SampleKey(
                key, key
            )  # for ``overfit_batches``, Lightning puts a sampler of its own in the place of ours
        with isolate_rng(include_cuda=False):
            torch.default_generator.manual_seed(key.seed)
            np.random.seed(key.seed % 2**32)
            random.seed(key.seed)
            return self.dataset[key.item]
