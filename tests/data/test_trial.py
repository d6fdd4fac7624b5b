import time
from itertools import islice
from types import SimpleNamespace

import pytest
from torch.utils.data import BatchSampler, DataLoader

from flatten_dense.data.trial import TrialBatches, TrialData


class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.02)
        return super().__getitem__(index)


@pytest.fixture
def batches():
    return TrialBatches(DataLoader(Slow(range(3)), batch_size=1), lambda: "heaviest")


def take(batches, number):
    return [batch if isinstance(batch, str) else batch.item() for batch in islice(batches, number)]


def test_the_heaviest_comes_first_and_at_the_chosen_place(batches):
    batches.last = 3
    assert take(batches, 5) == ["heaviest", 0, 1, "heaviest", 2]


def test_it_is_as_long_as_the_loader_and_goes_on_after_an_epoch(batches):
    assert len(batches) == 3
    assert take(batches, 3) + take(batches, 3) == ["heaviest", 0, 1, 2, 0, 1]


def test_waiting_for_ordinary_batches_is_timed(batches):
    take(batches, 2)
    assert batches.waits[0] == 0
    assert all(wait >= 0.02 for wait in batches.waits[1:])


def test_prefetched_batches_are_what_the_workers_keep_ready():
    loader = SimpleNamespace(num_workers=3, prefetch_factor=4)
    assert TrialBatches(loader, dict).prefetched == 12
    assert TrialBatches(DataLoader([0]), dict).prefetched == 0


def test_its_batch_size_is_the_loaders():
    sampler = BatchSampler(range(6), 3, drop_last=False)
    assert TrialBatches(DataLoader(range(6), batch_size=2), dict).batch_size == 2
    assert TrialBatches(DataLoader(range(6), batch_sampler=sampler), dict).batch_size == 3


@pytest.fixture
def data():
    loader = DataLoader([0] * 5)
    return SimpleNamespace(
        datasets={"val": "the set"},
        train_dataloader=lambda: loader,
        val_dataloader=lambda: loader,
        heaviest_batch=lambda split: f"heaviest of {split}",
    )


def test_the_heaviest_evaluation_batch_comes_twice_with_its_set(data):
    trial = TrialData(data)
    loader = trial.val_dataloader()
    assert list(loader) == ["heaviest of val"] * 2
    assert loader.dataset == "the set"
    assert trial.validation_batches == 5


def test_training_begins_with_the_heaviest_training_batch(data):
    assert next(TrialData(data).train_dataloader()) == "heaviest of train"
