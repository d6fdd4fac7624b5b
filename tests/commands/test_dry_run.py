import math
from dataclasses import replace
from datetime import datetime

import pytest

from flatten_dense.callbacks.dry_run import Measurements, Memory
from flatten_dense.cli import main
from flatten_dense.commands.dry_run import (
    count_batches,
    count_validations,
    largest_batch,
    memory_rows,
    speed_rows,
    time_rows,
)

GIB = 2**30


def test_the_largest_batch_follows_from_a_line():
    # 2 GiB and 0.5 GiB an image; of 20 GiB 18 may be taken.
    assert largest_batch(8, resting=2 * GIB, peak=6 * GIB, available=20 * GIB) == 32


def test_no_batch_fits_beside_what_rests():
    assert largest_batch(1, resting=19 * GIB, peak=20 * GIB, available=20 * GIB) == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"val_check_interval": 300, "check_val_every_n_epoch": None}, 3),
        ({"val_check_interval": None, "check_val_every_n_epoch": 1}, 10),
        ({"val_check_interval": None, "check_val_every_n_epoch": 3}, 3),
        ({"val_check_interval": 0.25, "check_val_every_n_epoch": 1}, 40),
        ({"val_check_interval": 50, "check_val_every_n_epoch": 2}, 10),
        ({"val_check_interval": 0.5, "check_val_every_n_epoch": None}, 20),
        ({"val_check_interval": "00:00:10:00", "check_val_every_n_epoch": 1}, None),
    ],
)
def test_validations_of_ten_epochs_of_a_hundred_batches(settings, expected):
    assert count_validations(1000, 100, settings) == expected


def test_validations_of_epochs_of_unknown_length():
    assert count_validations(1000, math.inf, {"val_check_interval": 300, "check_val_every_n_epoch": None}) == 3
    assert count_validations(1000, math.inf, {"val_check_interval": None, "check_val_every_n_epoch": 1}) is None


MEASURED = Measurements(
    seconds_per_batch=0.5, evaluation_seconds=2.0, first_step=100, total_steps=400, batches_per_epoch=10
)


def test_the_end_is_that_of_training_and_validations():
    # 300 steps of two batches of half a second, and 6 validations of 10 batches of 2 seconds: 300 s and 120 s.
    settings = {"val_check_interval": 100, "check_val_every_n_epoch": None}
    rows = dict(time_rows(MEASURED, 2, settings, 10, datetime(2026, 1, 1, 23, 58)))
    assert rows["steps"] == "400, 100 of them done"
    assert rows["estimated end"] == "2026-01-02 00:05, after 7 min"


@pytest.mark.parametrize(
    ("steps", "per_epoch", "expected"), [(8, 7, 14), (9, 7, 16), (3, 7, 6), (8, 8, 16), (8, math.inf, 16)]
)
def test_the_last_step_of_an_epoch_takes_what_is_left(steps, per_epoch, expected):
    assert count_batches(steps, 2, per_epoch) == expected


def test_validations_under_accumulation_are_those_of_the_epochs():
    # 300 steps of at most 4 batches in epochs of 9 are 100 epochs.
    measured = replace(MEASURED, batches_per_epoch=9)
    rows = dict(time_rows(measured, 4, {"val_check_interval": None, "check_val_every_n_epoch": 1}, 10, datetime.now()))
    assert rows["validations"].startswith("100 of")


def test_speed_counts_optimiser_steps():
    assert dict(speed_rows(MEASURED, 4, 2))["speed"] == "0.5 steps per second, 4 batches each"


@pytest.mark.parametrize(("waiting", "hint"), [(0.1, False), (0.3, True)])
def test_much_waiting_gives_a_hint(waiting, hint):
    measured = Measurements(seconds_per_batch=1, waiting=waiting)
    text = dict(speed_rows(measured, 1, 3))["waiting for data"]
    assert ("--data.num_workers, now 3" in text) == hint


def test_a_gpu_is_told_the_batch_size_that_fits():
    rows = dict(memory_rows(Memory(7 * GIB, 2 * GIB, heaviest=6 * GIB, available=20 * GIB), 8))
    assert rows["peak memory"] == "7.00 GiB of the 20.00 GiB that this GPU has free"
    assert rows["batch size"].startswith("up to about 32 would fit")


def test_memory_that_nobody_counts():
    assert memory_rows(None, 8) == [("peak memory", "not measured on this device")]


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("flatten_dense.commands.trainer.rank_zero_info", lambda text: lines.append(str(text)))
    return lines


def test_a_dry_run_reports_and_leaves_nothing(fitted, tmp_path, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["-c", str(fitted.recipe), "--data.root", str(fitted.data), "--trainer.max_steps", "6"]
    callback = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    before = sorted(fitted.data.rglob("*"))
    assert main(["fit", "--dry-run", *options, callback]) == 0
    (report,) = said
    for row in (
        "parameters",
        "heaviest batch   2 images of 32 x 48",
        "speed",
        "validations      3 of",
        "estimated end",
    ):
        assert row in report
    assert list(tmp_path.iterdir()) == []
    assert sorted(fitted.data.rglob("*")) == before


def test_nothing_is_left_to_train(fitted, capsys):
    last = fitted.run / "checkpoints" / "last.ckpt"
    assert main(["fit", "--dry_run", "--ckpt_path", str(last)]) == 2
    assert "nothing is left to train at step 4" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_named(fitted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["-c", str(fitted.recipe), "--data.root", str(fitted.data), "--model.optimizer.lr", "1e30"]
    assert main(["fit", "--dry-run", *options]) == 2
    assert "--dry-run: loss is nan at training batch 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
