"""A run that is stopped and resumed is, bit for bit, the run that was not."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.utils.data import Dataset

from flatten_dense.callbacks import EMA, DueValidation, LastCheckpoint, RandomStates, Resumption
from flatten_dense.data.base import BaseDataModule
from flatten_dense.structures import InputFormat, LabelSpace, Normalization, default_palette
from flatten_dense.tasks.checkpoint import AtomicCheckpointIO, read_checkpoint

BATCHES, ACCUMULATED, EPOCHS = 7, 2, 3
STEPS = EPOCHS * 4  # Lightning takes a step after the last batch too


class Noise(Dataset):
    """Draws from all generators in training, and from none in validation, as our data do."""

    def __init__(self, split):
        self.is_drawn = split == "train"

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, index):
        drawn = [torch.randn(()), np.random.randn(), random.gauss(0, 1)] if self.is_drawn else [0, 0, 0]
        return {"image": torch.tensor([index, *drawn], dtype=torch.float32)}


class NoiseDataModule(BaseDataModule):
    def __init__(self, num_workers):
        super().__init__(InputFormat(None, Normalization()), 2, 2, num_workers)

    def make_labels(self):
        return LabelSpace(("cat",), default_palette(1))

    def make_dataset(self, split):
        return Noise(split)


class Stop(Exception):
    pass


class Net(LightningModule):
    """Draws from all generators, and is stopped before a batch."""

    def __init__(self, stop_before=None, stop_in_validation=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.seen = {}
        self.scores = {}
        self.stop_before = stop_before
        self.stop_in_validation = stop_in_validation

    def training_step(self, batch, index):
        place = self.trainer.fit_loop.epoch_loop.total_batch_idx
        if place == self.stop_before:
            raise Stop
        loss = self.layers(batch["image"]).square().mean() * (1 + np.random.rand() + random.random())
        self.seen[place] = (loss.item(), self.optimizers().param_groups[0]["lr"])
        return loss

    def validation_step(self, batch, index):
        if self.global_step == self.stop_in_validation and index == 1:
            raise Stop
        self.log("score", self.layers(torch.stack(batch["image"])).mean(), on_epoch=True, batch_size=2)

    def on_validation_epoch_end(self):
        self.scores[self.global_step] = float(self.trainer.callback_metrics["score"])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / STEPS) ** 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(folder, net, ckpt_path=None, num_workers=0, save_every=1, average=True, **options):
    best = ModelCheckpoint(folder, "best", monitor="score", mode="max")
    callbacks = [RandomStates(), Resumption(), DueValidation(), *([EMA(0.9)] if average else []), best]
    trainer = Trainer(
        **options,
        accelerator="cpu",
        devices=1,
        accumulate_grad_batches=ACCUMULATED,
        callbacks=[*callbacks, LastCheckpoint(folder / "last.ckpt", save_every)],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = NoiseDataModule(num_workers)
    trainer.fit(net, data, ckpt_path=ckpt_path, weights_only=True)


def same(first, second):
    """Whether nested lists, dicts and tensors are equal to the last bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def train(folder, stop_before=None, stop_in_validation=None, num_workers=0, save_every=1, seed=0, **options):
    """Train, stopped and resumed if so wished; what was learnt from, and the last checkpoint."""
    seed_everything(seed, verbose=False)
    net = Net(stop_before, stop_in_validation)
    if stop_before is stop_in_validation is None:
        fit(folder, net, num_workers=num_workers, **options)
    else:
        with pytest.raises(Stop):
            fit(folder, net, num_workers=num_workers, save_every=save_every, **options)
        first = net
        torch.rand(17), np.random.rand(5), random.random()
        net = Net()
        fit(folder, net, folder / "last.ckpt", num_workers=num_workers, save_every=save_every, **options)
        net.seen = {**first.seen, **net.seen}
        net.scores = {**first.scores, **net.scores}
    return net, read_checkpoint(folder / "last.ckpt")


LIMITS = {
    "steps": {"max_steps": STEPS, "max_epochs": -1, "val_check_interval": 4, "check_val_every_n_epoch": None},
    "epochs": {"max_epochs": EPOCHS},
}
EVERYWHERE = [*range(2, EPOCHS * BATCHES)]
SOMEWHERE = [4, 7, 15]


@pytest.fixture(scope="module", params=LIMITS)
def limits(request):
    return LIMITS[request.param]


@pytest.fixture(scope="module")
def uninterrupted(limits, tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), **limits)


def require_same(resumed, uninterrupted):
    (net, last), (whole, whole_last) = resumed, uninterrupted
    assert net.seen == whole.seen
    assert net.scores == whole.scores
    averaged = {"current_model_state", "averaging_state"} & whole_last.keys()
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "random_states", *averaged):
        assert same(last[key], whole_last[key]), key


@pytest.mark.parametrize(
    "stop_before", [at if at in SOMEWHERE else pytest.param(at, marks=pytest.mark.slow) for at in EVERYWHERE]
)
def test_a_stop_anywhere_changes_nothing(uninterrupted, limits, stop_before, tmp_path):
    require_same(train(tmp_path, stop_before, **limits), uninterrupted)


@pytest.mark.parametrize("stop_before", [8, 12, 14])
def test_steps_after_the_last_checkpoint_are_repeated(uninterrupted, limits, stop_before, tmp_path):
    require_same(train(tmp_path, stop_before, save_every=3, **limits), uninterrupted)


@pytest.mark.parametrize("stop_before", [None, 9])
def test_workers_change_nothing(uninterrupted, limits, stop_before, tmp_path):
    require_same(train(tmp_path, stop_before, num_workers=1, **limits), uninterrupted)


@pytest.mark.parametrize("stop_before", [5, 9])
def test_a_strategy_that_loads_late_changes_nothing(limits, stop_before, tmp_path, monkeypatch):
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", True)  # as FSDP does, which has no EMA
    whole, cut = (train(tmp_path / str(at), at, num_workers=1, average=False, **limits) for at in (None, stop_before))
    require_same(cut, whole)


def test_another_seed_changes_everything(uninterrupted, limits, tmp_path):
    net, _ = train(tmp_path, seed=1, **limits)
    assert all(net.seen[batch] != seen for batch, seen in uninterrupted[0].seen.items())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stop_in_a_validation_repeats_it(uninterrupted, limits, number, tmp_path):
    stop_in = sorted(uninterrupted[0].scores)[number]
    require_same(train(tmp_path, stop_in_validation=stop_in, **limits), uninterrupted)


def test_a_stop_in_the_validation_after_max_steps_repeats_it(tmp_path):
    limits = {"max_steps": STEPS, "max_epochs": -1}
    whole = train(tmp_path / "whole", **limits)
    resumed = train(tmp_path / "cut", stop_in_validation=STEPS, save_every=5, **limits)
    assert STEPS in whole[0].scores
    require_same(resumed, whole)


def test_many_stops_change_nothing(uninterrupted, limits, tmp_path):
    seed_everything(0, verbose=False)
    net, seen, scores = Net(), {}, {}
    for stop_before in (3, 4, 7, 8, 13, 15, None):
        net.stop_before = stop_before
        with pytest.raises(Stop) if stop_before else nullcontext():
            fit(tmp_path, net, tmp_path / "last.ckpt" if seen else None, **limits)
        seen, scores = {**seen, **net.seen}, {**scores, **net.scores}
        net = Net()
    net.seen, net.scores = seen, scores
    require_same((net, read_checkpoint(tmp_path / "last.ckpt")), uninterrupted)


@pytest.mark.parametrize("steps", [3, 4, 5, 8])
def test_a_longer_run_goes_on_from_a_finished_one(limits, steps, tmp_path, uninterrupted):
    seed_everything(0, verbose=False)
    first = Net()
    fit(tmp_path, first, **{**limits, "max_steps": steps})
    second = Net()
    fit(tmp_path, second, tmp_path / "last.ckpt", **limits)
    second.seen = {**first.seen, **second.seen}
    second.scores = {**first.scores, **second.scores}
    require_same((second, read_checkpoint(tmp_path / "last.ckpt")), uninterrupted)
