from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.connectors.data_connector import _DataConnector
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import DataLoader

from flatten_dense.data.detection.sampler import AspectRatioSampler
from flatten_dense.data.sampler import EpochSampler

NUMBER = 21
SIZES = [(3, 4)] * 11 + [(4, 3)] * 8 + [(4, 4)] * 2


def aspect_ratio(number, *options):
    return AspectRatioSampler(SIZES[:number], *options)


@pytest.fixture(params=[EpochSampler, aspect_ratio])
def make(request):
    return request.param


def keys(make, batch_size=2, processes=1, rank=0, epoch=0, number=NUMBER):
    sampler = make(number, batch_size, processes, rank)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


def chunks(items, size):
    return [items[first : first + size] for first in range(0, len(items), size)]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_processes_get_as_many_full_batches_and_no_sample_twice(make, processes, batch_size):
    shares = [keys(make, batch_size, processes, rank) for rank in range(processes)]
    assert {len(share) for share in shares} == {NUMBER // batch_size // processes * batch_size}
    seen = [key.item for share in shares for key in share]
    assert len(set(seen)) == len(seen)


def test_two_processes_share_the_batches_of_one_of_double_size(make):
    one = chunks(keys(make, 4), 4)
    two = [chunks(keys(make, 2, 2, rank), 2) for rank in range(2)]
    assert [sorted(batch) for batch in one] == [sorted(first + second) for first, second in zip(*two, strict=True)]


def test_every_epoch_has_its_own_order_and_a_seed_repeats_it(make, monkeypatch):
    orders = []
    for seed in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        orders += [[key.item for key in keys(make, epoch=epoch)] for epoch in range(3)]
        assert keys(make, epoch=1) == keys(make, epoch=1)
    assert all(orders.count(order) == 1 for order in orders)


def test_no_sample_has_the_seed_of_another_or_of_another_epoch(make):
    seeds = [key.seed for epoch in range(10) for key in keys(make, epoch=epoch)]
    assert len(set(seeds)) == len(seeds)


def test_other_samples_are_left_out_in_other_epochs(make):
    assert {key.item for epoch in range(10) for key in keys(make, epoch=epoch)} == set(range(NUMBER))


@pytest.mark.parametrize(("number", "batch_size", "processes", "expected"), [(3, 8, 1, 3), (7, 4, 2, 3), (5, 4, 4, 1)])
def test_fewer_samples_than_a_batch_for_each_process_make_one_smaller_batch(
    make, number, batch_size, processes, expected
):
    for rank in range(processes):
        assert len(keys(make, batch_size, processes, rank, number=number)) == expected


def test_fewer_samples_than_processes_are_refused(make):
    with pytest.raises(ValueError, match=r"--trainer.devices: 4 processes cannot share 3 training image"):
        make(3, 2, 4, 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_iteration_begins_where_it_is_told_and_later_ones_at_the_beginning(make, rank):
    sampler = make(NUMBER, 3, 2, rank)
    sampler.start = 4, 2
    assert list(sampler) == keys(make, 3, 2, rank, epoch=4)[6:]
    sampler.set_epoch(5)
    assert list(sampler) == keys(make, 3, 2, rank, epoch=5)


def test_lightning_leaves_the_sampler_in_place_when_there_are_processes():
    connector = object.__new__(_DataConnector)
    accelerator = SimpleNamespace(use_distributed_sampler=True, is_distributed=True)
    connector.trainer = SimpleNamespace(_accelerator_connector=accelerator)
    loader = DataLoader(range(21), 2, sampler=EpochSampler(21, 2, 2, 1))
    assert connector._prepare_dataloader(loader, True, RunningStage.TRAINING) is loader


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = [[] for _ in range(3)]

    def training_step(self, batch, index):
        self.seen[self.current_epoch] += batch
        return self.weight * 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Keys(dict):
    def __missing__(self, key):
        return key


def test_lightning_tells_the_epoch(make):
    model = Recorder()
    loader = DataLoader(Keys(), 2, sampler=make(NUMBER, 2), collate_fn=list)
    Trainer(max_epochs=3, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, barebones=True).fit(
        model, loader
    )
    assert model.seen == [keys(make, epoch=epoch) for epoch in range(3)]
