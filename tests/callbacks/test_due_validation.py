import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.utils.data import DataLoader

from flatten_dense.callbacks import DueValidation, LastCheckpoint, Resumption


class Stop(Exception):
    pass


class Net(LightningModule):
    """Is stopped in its validation, if so wished."""

    def __init__(self, stops=False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.stops = stops
        self.batches = self.validated = 0

    def training_step(self, batch, index):
        self.batches += 1
        return self.weight * 1

    def validation_step(self, batch, index):
        self.validated += 1
        if self.stops and index == 1:
            raise Stop

    def configure_optimizers(self):
        self.total = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 1.0)


@pytest.fixture
def fit(tmp_path):
    """Trains for 4 steps of one batch; a validation has 3."""

    def train(net, ckpt_path=None, **options):
        trainer = Trainer(
            callbacks=[Resumption(), DueValidation(), LastCheckpoint(tmp_path / "last.ckpt", 100)],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"max_steps": 4, "max_epochs": -1, "val_check_interval": 4, **options},
        )
        trainer.fit(net, DataLoader(torch.zeros(8)), DataLoader(torch.zeros(3)), ckpt_path=ckpt_path)
        return trainer

    return train


@pytest.fixture
def stopped(fit, tmp_path):
    with pytest.raises(Stop):
        fit(Net(stops=True))
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize("is_late", [False, True])
def test_the_validation_comes_and_no_step(fit, stopped, is_late, monkeypatch):
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", is_late)
    net = Net()
    trainer = fit(net, stopped)
    assert (net.batches, net.validated) == (0, 3)
    assert (trainer.global_step, trainer.max_steps) == (4, 4)


def test_the_length_of_training_stays(fit, stopped, monkeypatch):
    said = []
    monkeypatch.setattr("flatten_dense.callbacks.resumption.rank_zero_info", said.append)
    net = Net()
    fit(net, stopped)
    assert net.total == 4
    assert said == []


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"val_check_interval": 3}])
def test_options_without_that_validation_train_no_step_either_and_it_is_said(fit, stopped, options, monkeypatch):
    said = []
    monkeypatch.setattr("flatten_dense.callbacks.due_validation.rank_zero_info", said.append)
    net = Net()
    trainer = fit(net, stopped, **options)
    assert (net.batches, net.validated, trainer.max_steps) == (0, 0, 4)
    assert f"`flatten-dense validate --ckpt_path {stopped}`" in said[0]


def test_a_longer_training_goes_on_after_the_validation(fit, stopped):
    net = Net()
    fit(net, stopped, max_steps=6)
    assert (net.batches, net.validated) == (2, 3)


def test_a_run_that_is_over_stays_so(fit, tmp_path):
    fit(Net())
    net = Net()
    fit(net, tmp_path / "last.ckpt")
    assert (net.batches, net.validated) == (0, 0)


def test_a_validation_that_was_repeated_is_over(fit, stopped):
    fit(Net(), stopped)
    net = Net()
    fit(net, stopped)
    assert (net.batches, net.validated) == (0, 0)
