import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from flatten_dense.callbacks import EMA, LastCheckpoint, Resumption
from flatten_dense.optim import PolySchedule
from flatten_dense.tasks.checkpoint import read_checkpoint


class Net(LightningModule):
    """Logs what each step is taken with."""

    def __init__(self, schedule=None, layers=2, **options):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(2, 2) for _ in range(layers)])
        self.schedule = schedule
        self.options = {"lr": 0.5, "weight_decay": 0.1, **options}
        self.taken = {}

    def training_step(self, batch, index):
        group = self.optimizers().param_groups[0]
        self.taken[self.global_step] = {name: group[name] for name in ("lr", "weight_decay", "betas")}
        return self.layers(torch.ones(1, 2)).square().sum()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), **self.options)
        if self.schedule is None:
            return optimizer
        if not isinstance(self.schedule, PolySchedule):
            return [optimizer], [self.schedule(optimizer)]
        scheduler = self.schedule(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("flatten_dense.callbacks.resumption.rank_zero_info", lines.append)
    return lines


@pytest.fixture
def fit(tmp_path, said):
    path = tmp_path / "last.ckpt"

    def train(net, steps, *callbacks, resume=False):
        trainer = Trainer(
            max_steps=steps,
            callbacks=[Resumption(), *callbacks, LastCheckpoint(path, 4)],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(net, DataLoader(torch.zeros(100)), ckpt_path=path if resume else None)
        return net.taken

    return train


LINE = PolySchedule(power=1)


def test_options_of_the_optimiser_are_those_of_the_command_line(fit):
    fit(Net(), 4)
    taken = fit(Net(lr=0.25, weight_decay=0.0, betas=(0.8, 0.9)), 6, resume=True)
    assert taken == {step: {"lr": 0.25, "weight_decay": 0.0, "betas": (0.8, 0.9)} for step in (4, 5)}


def test_moments_are_those_of_the_checkpoint(fit, tmp_path):
    fit(Net(), 4)
    fit(Net(lr=0.25), 6, resume=True)
    states = read_checkpoint(tmp_path / "last.ckpt")["optimizer_states"][0]["state"]
    assert {int(state["step"]) for state in states.values()} == {6}


def test_another_base_rate_moves_the_whole_schedule(fit):
    fit(Net(LINE), 8)
    fit(Net(LINE), 4)
    taken = fit(Net(LINE, lr=0.25), 8, resume=True)
    assert [taken[step]["lr"] for step in range(4, 8)] == pytest.approx([0.25 * (1 - step / 8) for step in range(4, 8)])


def test_another_length_moves_the_rate_at_once_and_is_named(fit, said):
    fit(Net(LINE), 8)
    assert said == []
    taken = fit(Net(LINE), 16, resume=True)
    assert [taken[step]["lr"] for step in range(8, 16)] == pytest.approx(
        [0.5 * (1 - step / 16) for step in range(8, 16)]
    )
    (line,) = said
    assert "is now 16 steps, was 8 steps; 8 are done" in line
    assert "the rate is 0.25 from here on, was 0" in line


def test_a_schedule_that_is_new_is_as_if_it_had_always_been_there(fit):
    fit(Net(), 4)
    taken = fit(Net(LINE), 8, resume=True)
    assert [taken[step]["lr"] for step in range(4, 8)] == pytest.approx([0.5 * (1 - step / 8) for step in range(4, 8)])


def test_without_the_schedule_the_rate_is_the_base_rate(fit):
    fit(Net(LINE), 4)
    taken = fit(Net(), 6, resume=True)
    assert [taken[step]["lr"] for step in (4, 5)] == [0.5, 0.5]


def test_a_scheduler_of_another_kind_keeps_its_rates(fit):
    def per_epoch(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    fit(Net(per_epoch), 100)
    taken = fit(Net(per_epoch), 102, resume=True)
    assert taken[100]["lr"] == 0.25


def test_a_resume_without_changes_says_nothing(fit, said):
    fit(Net(LINE), 4)
    fit(Net(LINE), 4, resume=True)
    assert said == []


@pytest.mark.parametrize("layers", [1, 3])
def test_other_parameters_are_refused_by_their_numbers(fit, tmp_path, layers):
    fit(Net(), 4)
    checkpoint = torch.load(tmp_path / "last.ckpt")
    checkpoint["state_dict"] = Net(layers=layers).state_dict()
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=rf"groups of \[4\] parameters, that of this run \[{2 * layers}\]"):
        fit(Net(layers=layers), 6, resume=True)


class Turned(Net):
    """The same parameters in another order."""

    def parameters(self, recurse=True):
        return reversed(list(super().parameters(recurse)))


def test_parameters_in_another_order_are_refused(fit):
    fit(Net(), 4)
    with pytest.raises(ValueError, match="cannot change within a training"):
        fit(Turned(), 6, resume=True)


def test_without_ema_training_goes_on_with_the_weights_themselves(fit, tmp_path):
    fit(Net(LINE), 4, EMA(0.9))
    saved = read_checkpoint(tmp_path / "last.ckpt")
    net = Net(lr=0.0, weight_decay=0.0)
    fit(net, 5, resume=True)
    assert torch.equal(net.layers[0].weight, saved["current_model_state"]["layers.0.weight"])
    assert not torch.equal(net.layers[0].weight, saved["state_dict"]["layers.0.weight"])
