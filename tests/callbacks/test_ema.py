from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from flatten_dense.callbacks import EMA, LastCheckpoint
from flatten_dense.tasks.checkpoint import read_checkpoint

DECAY = 0.99982


class Net(LightningModule):
    """A weight that rises by 1 in every step, and buffers of all kinds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        for name, buffer in {
            "index": torch.tensor([3, 10_007, -5]),
            "mask": torch.tensor([True, False, True]),
            "count": torch.tensor(0),
            "mean": torch.zeros(2, dtype=torch.float64),
        }.items():
            self.register_buffer(name, buffer)
        self.validated = []
        self.callback_saw = []

    def training_step(self, batch, index):
        self.count += 1
        self.mean += 1
        return -self.weight.sum()

    def validation_step(self, batch, index):
        self.validated.append(float(self.weight[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


def fit(net, ema, steps, *callbacks, ckpt_path=None, **options):
    loader = DataLoader(torch.zeros(steps))
    trainer = Trainer(
        max_steps=steps,
        callbacks=[ema, *callbacks],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=any(isinstance(callback, LastCheckpoint) for callback in (ema, *callbacks)),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(net, loader, DataLoader(torch.zeros(1)), ckpt_path=ckpt_path, weights_only=True)


def expected(steps, start=0.0, decay=DECAY):
    """The average of 1, 2, ... steps, by the recurrence in double precision."""
    average = start
    for step in range(1, steps + 1):
        average = decay * average + (1 - decay) * (start + step)
    return average


def test_an_index_is_unchanged_after_a_thousand_updates():
    net = Net()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    fit(net, EMA(DECAY), 1000, num_sanity_val_steps=0)
    for name in ("index", "mask"):
        assert getattr(net, name).dtype == before[name].dtype
        assert torch.equal(getattr(net, name), before[name])


def test_weights_and_running_means_are_averaged_and_counters_copied():
    net = Net()
    fit(net, EMA(DECAY), 1000, num_sanity_val_steps=0)
    assert net.weight.tolist() == pytest.approx([expected(1000)] * 3, rel=1e-4)
    assert net.mean.tolist() == pytest.approx([expected(1000)] * 2, rel=1e-9)
    assert net.count == 1000


class Loading(Net):
    def on_fit_start(self):
        self.weight.data.fill_(100.0)


def test_the_average_begins_with_the_weights_that_a_fit_loads_at_its_start():
    net = Loading()
    fit(net, EMA(0.9), 3)
    assert net.validated[0] == 100.0
    assert net.weight.tolist() == pytest.approx([expected(3, 100.0, 0.9)] * 3)


def test_validation_is_of_the_average():
    net = Net()
    fit(net, EMA(0.9), 4, val_check_interval=2, num_sanity_val_steps=0)
    assert net.validated == pytest.approx([expected(steps, decay=0.9) for steps in (2, 4)])


def test_training_goes_on_with_the_weights_after_a_validation(tmp_path):
    net = Net()
    fit(net, EMA(0.9), 4, LastCheckpoint(tmp_path / "last.ckpt", 100), val_check_interval=1)
    saved = read_checkpoint(tmp_path / "last.ckpt")
    assert saved["current_model_state"]["weight"].tolist() == [4.0] * 3
    assert saved["state_dict"]["weight"].tolist() == pytest.approx([expected(4, decay=0.9)] * 3)


def test_a_resumed_run_goes_on_with_both(tmp_path):
    path = tmp_path / "last.ckpt"
    fit(Net(), EMA(0.9), 3, LastCheckpoint(path, 100))
    net = Net()
    fit(net, EMA(0.9), 8, LastCheckpoint(path, 100), ckpt_path=path)
    assert read_checkpoint(path)["current_model_state"]["weight"].tolist() == [8.0] * 3
    assert net.weight.tolist() == pytest.approx([expected(8, decay=0.9)] * 3)


def test_a_checkpoint_without_an_average_gives_it_its_weights(tmp_path):
    path = tmp_path / "last.ckpt"
    fit(Net(), LastCheckpoint(path, 100), 3)
    net = Net()
    fit(net, EMA(0.9), 5, LastCheckpoint(path, 100), ckpt_path=path)
    assert net.weight.tolist() == pytest.approx([expected(2, start=3.0, decay=0.9)] * 3)


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=f"decay must be at least 0 and below 1, got {decay}"):
        EMA(decay)


def test_weights_that_are_dealt_out_are_refused():
    trainer = SimpleNamespace(strategy=SimpleNamespace(restore_checkpoint_after_setup=True))
    with pytest.raises(ValueError, match=r"EMA averages whole weights, .* use --trainer\.strategy ddp"):
        EMA().setup(trainer, nn.Linear(1, 1), "fit")
