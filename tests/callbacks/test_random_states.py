import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flatten_dense.callbacks import RandomStates

MODULE = SimpleNamespace(device=torch.device("cpu"))
TRAINER = SimpleNamespace(world_size=1, global_rank=0, state=SimpleNamespace(fn="fit"))


def draw():
    # A normal number of numpy's and Python's leaves half of what was drawn for the next.
    return [float(torch.rand(())), np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random()]


def saved(path, trainer=TRAINER):
    checkpoint = {}
    RandomStates().on_save_checkpoint(trainer, MODULE, checkpoint)
    torch.save(checkpoint, path)
    return torch.load(path, weights_only=True)


def resume(checkpoint, trainer=TRAINER):
    callback = RandomStates()
    callback.on_load_checkpoint(trainer, MODULE, checkpoint)
    draw()
    callback.on_train_start(trainer, MODULE)


def test_numbers_go_on_as_they_would_have(tmp_path):
    draw()
    checkpoint = saved(tmp_path / "states.ckpt")
    expected = draw()
    resume(checkpoint)
    assert draw() == expected


def test_a_start_without_a_checkpoint_changes_nothing():
    torch.manual_seed(0)
    expected = float(torch.rand(()))
    torch.manual_seed(0)
    RandomStates().on_train_start(TRAINER, MODULE)
    assert float(torch.rand(())) == expected


def test_each_process_takes_its_own():
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        checkpoint = {}
        RandomStates().on_save_checkpoint(TRAINER, MODULE, checkpoint)
        states += checkpoint["random_states"]
    for rank in range(2):
        trainer = SimpleNamespace(world_size=2, global_rank=rank, state=TRAINER.state)
        resume({"random_states": states}, trainer)
        drawn = torch.rand(3)
        torch.manual_seed(rank)
        assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize("states", [{}, {"random_states": [None, None]}])
def test_another_number_of_processes_is_said(states, monkeypatch):
    said = []
    monkeypatch.setattr("flatten_dense.callbacks.random_states.rank_zero_info", said.append)
    resume(states)
    assert len(said) == 1
    assert "this run has 1" in said[0]


def test_processes_of_a_new_training_part(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")

    def drawn(rank):
        torch.manual_seed(7)
        np.random.seed(7)
        random.seed(7)
        RandomStates().on_train_start(SimpleNamespace(world_size=2, global_rank=rank), MODULE)
        return draw()

    first, second = drawn(0), drawn(1)
    assert all(ours != theirs for ours, theirs in zip(first, second, strict=True))
    assert drawn(1) == second
