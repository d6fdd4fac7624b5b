from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.connectors.data_connector import _DataConnector
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import DataLoader

from flatten_dense.data.detection.sampler import AspectRatioSampler

SIZES = [(3, 4)] * 11 + [(4, 3)] * 8 + [(4, 4)] * 2


def batches(sizes=SIZES, batch_size=2, processes=1, rank=0, epoch=0):
    sampler = AspectRatioSampler(sizes, batch_size, processes, rank)
    sampler.set_epoch(epoch)
    loader = DataLoader(range(len(sizes)), batch_size, sampler=sampler, collate_fn=list)
    assert len(loader) == len(list(loader))
    return list(loader)


def mixed(batch):
    return len({width > height for height, width in (SIZES[index] for index in batch)}) > 1


def test_landscapes_and_others_come_apart_but_for_what_is_over():
    for epoch in range(20):
        assert sum(map(mixed, batches(epoch=epoch))) <= 1
        assert sum(map(mixed, batches(SIZES[:20], epoch=epoch))) == 1  # 11 and 9: one of each is over


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_processes_get_as_many_full_batches_and_no_image_twice(processes, batch_size):
    shares = [batches(SIZES, batch_size, processes, rank) for rank in range(processes)]
    assert {len(share) for share in shares} == {len(SIZES) // batch_size // processes}
    assert {len(batch) for share in shares for batch in share} == {batch_size}
    seen = [index for share in shares for batch in share for index in batch]
    assert len(set(seen)) == len(seen)


def test_every_epoch_has_its_own_order_and_a_seed_repeats_it(monkeypatch):
    assert batches(epoch=1) != batches(epoch=2)
    assert batches(epoch=1) == batches(epoch=1)
    seed_0 = batches()
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert batches() != seed_0


def test_kinds_of_batches_are_shuffled_too():
    kinds = ["".join("lp"[SIZES[batch[0]][0] > 3] for batch in batches(epoch=epoch)) for epoch in range(5)]
    assert len(set(kinds)) > 1
    assert all("pl" in kind and "lp" in kind for kind in kinds)


def test_other_images_are_left_out_in_other_epochs():
    seen = {index for epoch in range(10) for batch in batches(epoch=epoch) for index in batch}
    assert seen == set(range(len(SIZES)))


@pytest.mark.parametrize(("number", "batch_size", "processes", "expected"), [(3, 8, 1, 3), (7, 4, 2, 3), (5, 4, 4, 1)])
def test_fewer_images_than_a_batch_for_each_process_make_one_smaller_batch(number, batch_size, processes, expected):
    for rank in range(processes):
        assert [len(batch) for batch in batches(SIZES[:number], batch_size, processes, rank)] == [expected]


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(ValueError, match=r"--trainer.devices: 4 processes cannot share 3 training image"):
        AspectRatioSampler(SIZES[:3], 2, 4, 0)


def test_lightning_leaves_the_sampler_in_place_when_there_are_processes():
    connector = object.__new__(_DataConnector)
    accelerator = SimpleNamespace(use_distributed_sampler=True, is_distributed=True)
    connector.trainer = SimpleNamespace(_accelerator_connector=accelerator)
    loader = DataLoader(range(21), 2, sampler=AspectRatioSampler(SIZES, 2, 2, 1))
    assert connector._prepare_dataloader(loader, True, RunningStage.TRAINING) is loader


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = [[] for _ in range(3)]

    def training_step(self, batch, index):
        self.seen[self.current_epoch].append(batch)
        return self.weight * 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_tells_the_epoch():
    model = Recorder()
    loader = DataLoader(range(21), 2, sampler=AspectRatioSampler(SIZES, 2), collate_fn=list)
    Trainer(max_epochs=3, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, barebones=True).fit(
        model, loader
    )
    assert model.seen == [batches(epoch=epoch) for epoch in range(3)]
