import os
import signal
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader

from flatten_dense.callbacks import DueValidation, LastCheckpoint, Preemption, RandomStates
from flatten_dense.tasks.checkpoint import read_checkpoint


class Net(LightningModule):
    """Gets a SIGTERM in a training batch or in a validation."""

    def __init__(self, in_batch=None, in_validation=False, warned_in=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.in_batch, self.in_validation, self.warned_in = in_batch, in_validation, warned_in
        self.batches = 0
        self.validated = 0

    def training_step(self, batch, index):
        self.batches += 1
        self.log("weight", self.weight)
        if index == self.in_batch:
            os.kill(os.getpid(), signal.SIGTERM)
        if index == self.warned_in:
            os.kill(os.getpid(), signal.SIGUSR1)
        return self.weight * 1

    def validation_step(self, batch, index):
        self.validated += 1
        if self.in_validation and index == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


@pytest.fixture
def fit(tmp_path):
    """Trains for an epoch of 12 batches; a validation has 5."""

    def train(net, ckpt_path=None, **options):
        last = LastCheckpoint(tmp_path / "last.ckpt", 100)
        trainer = Trainer(
            callbacks=[RandomStates(), DueValidation(), last, Preemption(last)],
            accelerator="cpu",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"logger": False, "max_epochs": 1, **options},
        )
        trainer.fit(net, DataLoader(torch.zeros(12)), DataLoader(torch.zeros(5)), ckpt_path=ckpt_path)

    return train


@pytest.mark.parametrize(("in_batch", "batches", "steps"), [(4, 6, 2), (5, 6, 2), (6, 9, 3)])
def test_it_ends_when_the_step_is_complete(fit, tmp_path, in_batch, batches, steps):
    net = Net(in_batch)
    with pytest.raises(SystemExit) as ended:
        fit(net, accumulate_grad_batches=3)
    assert ended.value.code == 143
    assert net.batches == batches
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == steps


def test_a_validation_that_is_due_comes_after_the_resume(fit, tmp_path):
    net, again = Net(in_batch=3), Net()
    with pytest.raises(SystemExit):
        fit(net, val_check_interval=4)
    assert (net.batches, net.validated) == (4, 0)
    fit(again, tmp_path / "last.ckpt", val_check_interval=4)
    assert (again.batches, again.validated) == (8, 15)


def test_a_validation_that_is_due_after_the_very_last_step_comes_after_the_resume(fit, tmp_path):
    net, again, third = Net(in_batch=7), Net(), Net()
    limits = {"max_epochs": -1, "max_steps": 8, "val_check_interval": 4}
    with pytest.raises(SystemExit):
        fit(net, **limits)
    assert (net.batches, net.validated) == (8, 5)
    fit(again, tmp_path / "last.ckpt", **limits)
    assert (again.batches, again.validated) == (0, 5)
    fit(third, tmp_path / "last.ckpt", **limits)
    assert (third.batches, third.validated) == (0, 0)


def test_what_was_logged_of_the_last_step_is_written(fit):
    logger = DummyLogger()
    written = []
    logger.log_metrics = lambda metrics, step: written.append(step)
    with pytest.raises(SystemExit):
        fit(Net(in_batch=3), logger=logger, log_every_n_steps=1)
    assert written == [0, 1, 2, 3]


def test_it_says_how_to_go_on(fit, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("flatten_dense.callbacks.preemption.rank_zero_info", said.append)
    with pytest.raises(SystemExit):
        fit(Net(in_batch=3))
    assert f"saved after step 4; go on with `flatten-dense fit --ckpt_path {tmp_path}/last.ckpt`" in said[0]


def test_a_validation_is_not_waited_for_and_comes_again(fit, tmp_path):
    net = Net(in_validation=True)
    with pytest.raises(SystemExit):
        fit(net, val_check_interval=4)
    assert (net.batches, net.validated) == (4, 2)
    again = Net()
    fit(again, tmp_path / "last.ckpt", val_check_interval=4)
    assert (again.batches, again.validated) == (8, 15)


def test_a_validation_within_a_step_is_waited_for(fit, tmp_path):
    net = Net(in_validation=True)
    with pytest.raises(SystemExit):
        fit(net, val_check_interval=4, accumulate_grad_batches=3)
    assert (net.batches, net.validated) == (6, 5)


def test_the_signals_are_afterwards_what_they_were(fit):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    with pytest.raises(SystemExit):
        fit(Net(in_batch=1))
    assert {number: signal.getsignal(number) for number in before} == before


def test_slurm_queues_the_job_again_as_ever(fit, tmp_path, monkeypatch):
    for name, value in {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    called = []
    connector = "lightning.pytorch.trainer.connectors.signal_connector"
    monkeypatch.setattr(f"{connector}.call", lambda command: called.append(command) or 0)
    net = Net(in_batch=5, warned_in=3)
    with pytest.raises(SystemExit):
        fit(net, plugins=[SLURMEnvironment()], default_root_dir=tmp_path)
    assert called == [["scontrol", "requeue", "7"]]
    assert (tmp_path / "hpc_ckpt_1.ckpt").is_file()
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 6


@pytest.mark.parametrize(("step", "asked"), [(9, 0), (10, 1), (11, 0)])
def test_several_processes_ask_one_another_now_and_then(tmp_path, step, asked):
    talks = []
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: talks.append(decision) or False)
    last = LastCheckpoint(tmp_path / "last.ckpt", 100)
    last.can_save = lambda trainer: True
    trainer = SimpleNamespace(world_size=2, global_step=step, strategy=strategy)
    Preemption(last).on_train_batch_end(trainer, None, None, None, 0)
    assert len(talks) == asked
