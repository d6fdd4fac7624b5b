import csv
import fcntl
import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # as for a script that lies there
compare_attention = importlib.import_module("compare_attention")
runs = importlib.import_module("experiments.runs")
SWIN = {"name": "flatten_swin_test", "options": {}}
CONFIG = {"model": {"init_args": {"backbone": {"class_path": "TimmClassifier", "init_args": SWIN}}}}


class Ended:
    def __init__(self, returncode):
        self.returncode = returncode

    def poll(self):
        return self.returncode


@pytest.fixture
def fits(monkeypatch):
    """(variant, seed) of each `fit`; it ends at once, and fails where its variant is in `fits.failing`."""

    class Fits(list):
        failing = ()
        train_before = True

    fits = Fits()

    def start_fit(options, log, threads, keep_open):
        assert threads == 3
        assert os.path.samestat(os.fstat(keep_open[0]), (log.parents[2] / "lock").stat())
        variant, seed = log.parent.parent.name, int(log.parent.name.removeprefix("seed_"))
        fits.append((variant, seed))
        log.write_text("why it failed\n")
        if not fits.train_before:
            return Ended(2)
        run = log.parent / "2026-01-01"
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        (run / "metrics.json").write_text(json.dumps({"top1": 0.5 + seed / 100, "per_class": {"cat": {}, "dog": {}}}))
        return Ended(1 if variant in fits.failing else 0)

    monkeypatch.setattr(runs, "start_fit", start_fit)
    monkeypatch.setattr(runs, "_POLL", 0)
    monkeypatch.setattr(importlib.import_module("experiments.tables"), "plot_scores", lambda *_: None)
    return fits


@pytest.fixture
def command(tmp_path):
    (tmp_path / "photos").mkdir()
    return ["window", "--data.root", str(tmp_path / "photos"), "--output", str(tmp_path / "out"), "--threads", "3"]


def refuse(capsys, arguments):
    """What the script says when it refuses."""
    with pytest.raises(SystemExit) as stop:
        compare_attention.main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.partition("error: ")[2]


def test_all_runs_are_trained_and_tabled(command, fits, tmp_path, capsys):
    assert compare_attention.main([*command, "--seeds", "0", "1"]) == 0
    assert fits == [(name, seed) for seed in (0, 1) for name in ("2x2", "4x4", "8x8", "whole")]
    with (tmp_path / "out/results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    assert "| whole | 50.5 |" in (tmp_path / "out/table.md").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("2x2, seed 0: top1 50.00 % in ")
    assert "; 7 left, about " in lines[1]
    assert lines[8].endswith("; none left")


def test_the_same_command_again_trains_nothing(command, fits):
    compare_attention.main([*command, "--seeds", "0"])
    del fits[:]
    assert compare_attention.main([*command, "--seeds", "0"]) == 0
    assert fits == []


def test_more_seeds_add_to_those_there_are(command, fits, tmp_path):
    compare_attention.main([*command, "--seeds", "0"])
    compare_attention.main([*command, "--seeds", "4"])
    assert {seed for _, seed in fits[4:]} == {4}
    assert "| seed 0 | seed 4 |" in (tmp_path / "out/table.md").read_text()


def test_what_failed_with_other_seeds_is_not_tried(command, fits):
    fits.failing = ("4x4",)
    compare_attention.main([*command, "--seeds", "0"])
    fits.failing = ()
    compare_attention.main([*command, "--seeds", "4"])
    assert [seed for _, seed in fits[4:]] == [4, 4, 4, 4]


def test_a_failure_is_shown_tabled_and_tried_again(command, fits, tmp_path, capsys):
    fits.failing = ("4x4",)
    assert compare_attention.main([*command, "--seeds", "0"]) == 1
    assert len(fits) == 4
    assert "why it failed" in capsys.readouterr().out
    assert "| 4x4 | - | - | - | failed |" in (tmp_path / "out/table.md").read_text()
    fits.failing = ()
    for run in (tmp_path / "out/4x4/seed_0").glob("2026*/*"):
        run.unlink()
    (tmp_path / "out/4x4/seed_0/2026-01-01").rmdir()
    assert compare_attention.main([*command, "--seeds", "0"]) == 0
    assert fits[4:] == [("4x4", 0)]


def test_what_fails_before_any_training_is_not_tried_with_the_other_runs(command, fits, capsys):
    fits.train_before = False
    assert compare_attention.main(command) == 1
    assert fits == [("2x2", 0)]
    out = capsys.readouterr().out
    assert "why it failed" in out
    assert out.splitlines()[-1].startswith("stopped: no run has begun to train")


def test_what_fails_before_its_training_does_not_hold_up_others_once_one_is_trained(command, fits):
    compare_attention.main([*command, "--seeds", "0"])
    fits.train_before = False
    assert compare_attention.main([*command, "--seeds", "1"]) == 1
    assert len(fits) == 8


def test_other_options_in_the_same_folder_are_refused(command, fits, capsys):
    compare_attention.main([*command, "--seeds", "0"])
    message = refuse(capsys, [*command, "--trainer.max_epochs", "3"])
    assert "was trained without --trainer.max_epochs 3" in message
    assert "name another folder" in message


def test_another_experiment_in_the_same_folder_is_refused(command, fits, capsys):
    compare_attention.main([*command, "--seeds", "0"])
    assert "holds the experiment 'window', not 'power'" in refuse(capsys, ["power", *command[1:]])


def test_another_state_of_the_recipe_is_refused(command, fits, tmp_path, capsys):
    compare_attention.main([*command, "--seeds", "0"])
    note = tmp_path / "out/experiment.json"
    was = json.loads(note.read_text())
    was["recipe"]["trainer"]["max_epochs"] = 1
    note.write_text(json.dumps(was))
    assert "another state of the recipe" in refuse(capsys, command)


def test_a_folder_of_something_else_is_refused(command, fits, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    assert "holds something else" in refuse(capsys, command)


def test_starts_are_noted_and_other_code_is_told_but_trained_with(command, fits, tmp_path, monkeypatch, capsys):
    compare_attention.main([*command, "--seeds", "0"])
    compare_attention.main([*command, "--seeds", "0"])  # trains nothing
    assert "same code" not in capsys.readouterr().out
    starts = importlib.import_module("experiments.starts")
    monkeypatch.setattr(starts, "version", lambda name: "0.0.1")
    assert compare_attention.main([*command, "--seeds", "1", "--jobs", "2"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "same code" in line)
    assert "torch was " in line
    noted = json.loads((tmp_path / "out/experiment.json").read_text())["starts"]
    assert [(start["jobs"], start["threads"]) for start in noted] == [(1, 3), (2, 3)]


def test_a_kill_while_the_folder_was_begun_does_no_harm(command, fits, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/experiment.json.part").write_text("{")
    assert compare_attention.main([*command, "--seeds", "0"]) == 0


def test_data_that_are_not_there_are_refused(command, fits, capsys, tmp_path):
    (tmp_path / "photos").rmdir()
    assert "photos: no such folder" in refuse(capsys, command)
    assert not (tmp_path / "out").exists()


def test_an_unknown_experiment_is_refused(command, capsys):
    assert "choose from 'cores', 'power', 'window'" in refuse(capsys, ["heads", *command[1:]])


@pytest.mark.parametrize(
    "option", [["--seed_everything", "1"], ["--runs=here"], ["--model.backbone.options.linear_window_size", "3"]]
)
def test_an_option_that_each_run_gets_from_the_script_is_refused(command, fits, capsys, option):
    assert f"{option[0]}: this script sets" in refuse(capsys, [*command, *option])


def test_the_time_left_is_that_of_the_same_variants_or_of_all(tmp_path, monkeypatch):
    short, long, other = (runs.Variant(name) for name in ("short", "long", "other"))
    took = {"short": 60.0, "long": 600.0}

    def result(run):
        seconds = took.get(run.variant.name)
        return seconds and run.seed == 0 and runs.Result(run.variant.name, 0, "top1", 0.5, seconds, 1, "somewhere")

    monkeypatch.setattr(runs.Run, "result", lambda run: result(run) or None)
    own = [runs.Run(variant, seed, tmp_path) for seed in (0, 1) for variant in (short, long, other)]
    time_left = compare_attention._time_left
    assert time_left([own[4]], own, 1) == "about 10 min"
    assert time_left([own[3], own[4]], own, 2) == "about 6 min"  # 11 by two at once
    assert time_left([own[5], own[5]], own, 1) == "about 11 min"
    assert time_left(own[5:], own[5:], 1) == "no telling how long"


def test_runs_of_an_earlier_start_are_waited_for(tmp_path, monkeypatch, capsys):
    flock, calls = fcntl.flock, []

    def taken(file, how):
        calls.append(how)
        if how & fcntl.LOCK_NB:
            raise BlockingIOError
        flock(file, how)

    monkeypatch.setattr(compare_attention.fcntl, "flock", taken)
    compare_attention._lock(tmp_path).close()
    assert calls[-1] == fcntl.LOCK_EX
    assert "under way already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_run_that_was_killed_before_it_was_noted_ends_with_the_same_score(tmp_path, monkeypatch):
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(64):
            colour = (200 if folder.endswith("a") else 50, number, 100)
            Image.new("RGB", (32, 32), colour).save(tmp_path / "photos" / folder / f"{number}.png")
    experiment = compare_attention.EXPERIMENTS["cores"]
    only = replace(experiment, variants=tuple(one for one in experiment.variants if one.name == "relu"))
    monkeypatch.setitem(compare_attention.EXPERIMENTS, "cores", only)
    command = ["cores", "--data.root", str(tmp_path / "photos"), "--output", str(tmp_path / "out"), "--seeds", "0"]
    command += ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "2", "--save_every", "1"]
    assert compare_attention.main(command) == 0
    note = tmp_path / "out/relu/seed_0/result.json"
    first = json.loads(note.read_text())
    note.unlink()
    assert compare_attention.main(command) == 0
    assert json.loads(note.read_text()) == {**first, "seconds": None}
    assert len(list(note.parent.glob("20*"))) == 1
    assert first["parameters"] > 200_000
