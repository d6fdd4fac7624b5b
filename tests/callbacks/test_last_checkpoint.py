import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from flatten_dense.callbacks import LastCheckpoint


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, index):
        return self.weight * 1

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Trains over epochs of 5 batches; gives the (step, in validation or not) of every saving."""

    def train(every, **options):
        seen = []
        monkeypatch.setattr(
            Trainer, "save_checkpoint", lambda trainer, *_, **__: seen.append((trainer.global_step, trainer.validating))
        )
        trainer = Trainer(
            callbacks=[LastCheckpoint(tmp_path / "last.ckpt", every)],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(Net(), DataLoader(torch.zeros(5)), DataLoader(torch.zeros(1)))
        return seen

    return train


TRAINING, VALIDATING = False, True


def test_every_n_steps_and_the_last_are_saved(saved):
    steps = saved(2, max_steps=5, limit_val_batches=0)
    assert steps == [(2, TRAINING), (4, TRAINING), (5, TRAINING)]


def test_a_step_is_saved_once_however_many_batches_it_takes(saved):
    steps = saved(1, max_epochs=1, accumulate_grad_batches=2, limit_val_batches=0)
    assert steps == [(1, TRAINING), (2, TRAINING), (3, TRAINING)]


def test_around_a_validation_it_is_saved_again(saved):
    assert saved(4, max_epochs=1, val_check_interval=4) == [
        (4, TRAINING),
        (4, VALIDATING),
        (4, VALIDATING),
        (5, TRAINING),
    ]


def test_between_two_steps_nothing_is_saved(saved):
    # The validation after the third batch falls into the second step.
    steps = saved(1, max_epochs=1, accumulate_grad_batches=2, val_check_interval=3)
    assert steps == [(1, TRAINING), (2, TRAINING), (3, TRAINING)]


def test_a_trial_run_leaves_nothing(saved):
    assert saved(1, fast_dev_run=2) == []
