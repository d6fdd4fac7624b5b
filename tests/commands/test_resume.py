import shutil
from pathlib import Path

import pytest
import torch
import yaml

from flatten_dense.cli import main
from flatten_dense.commands.resume import describe_changes
from flatten_dense.tasks.checkpoint import read_checkpoint


def lines(was, now):
    return [line.split() for line in describe_changes(yaml.safe_dump(was), yaml.safe_dump(now)).splitlines()[1:]]


def test_options_have_the_names_of_the_command_line():
    was = {"model": {"class_path": "Task", "init_args": {"groups": {"layer_decay": 1.0}}}, "save_every": 3}
    now = {"model": {"class_path": "Task", "init_args": {"groups": {"layer_decay": 0.75}}}, "save_every": 3}
    assert lines(was, now) == [["model.groups.layer_decay", "1.0", "0.75"]]


def test_another_class_is_shown_by_the_option_that_names_it():
    was = {"model": {"optimizer": {"class_path": "AdamW", "init_args": {"lr": 1.0}}}}
    now = {"model": {"optimizer": {"class_path": "SGD", "init_args": {"lr": 1.0}}}}
    assert lines(was, now) == [["model.optimizer", "AdamW", "SGD"]]


def test_an_option_that_one_of_them_lacks_is_shown():
    assert lines({"a": {"b": 1}}, {"a": {"c": 2}}) == [["a.b", "1", "(none)"], ["a.c", "(none)", "2"]]


def test_lists_are_compared_as_a_whole_and_cut_short():
    was, now = {"sizes": [480]}, {"sizes": list(range(480, 801, 8))}
    (line,) = describe_changes(yaml.safe_dump(was), yaml.safe_dump(now)).splitlines()[1:]
    assert line.endswith("[480, 488, 496, 504, 512, 520, 528, 536, 544,...")


def test_equal_configurations_and_where_a_run_lies_make_no_table():
    was = {"data": {"root": "x"}, "ckpt_path": None, "runs": "runs", "name": "one"}
    assert describe_changes(yaml.safe_dump(was), yaml.safe_dump({**was, "ckpt_path": "last.ckpt", "name": "two"})) == ""


@pytest.fixture
def stopped(fitted, tmp_path):
    """A run of its own that may go on from its step 4."""
    return Path(shutil.copytree(fitted.run, tmp_path / "stopped" / "then"))


def test_changes_are_shown_and_obeyed(stopped, monkeypatch):
    said = []
    for module in ("commands.trainer", "callbacks.resumption"):
        monkeypatch.setattr(f"flatten_dense.{module}.rank_zero_info", said.append)
    last = stopped / "checkpoints/last.ckpt"
    options = ["--model.optimizer.weight_decay", "0.3", "--trainer.max_steps", "8"]
    assert main(["fit", "--ckpt_path", str(last), *options]) == 0
    (table,) = (text for text in said if "changes the options" in text)
    assert [line.split() for line in table.strip().splitlines()[1:]] == [
        ["option", "was", "is", "now"],
        ["model.optimizer.weight_decay", "0.01", "0.3"],
        ["trainer.max_steps", "4", "8"],
    ]
    assert any("is now 8 steps, was 4 steps; 4 are done" in text for text in said)
    group = read_checkpoint(last)["optimizer_states"][0]["param_groups"][0]
    assert group["weight_decay"] == 0.3


REFUSED = {
    "optimiser": (["--model.optimizer", "torch.optim.SGD"], "whose state is of no use to torch.optim.SGD"),
    "model": (["--model.head.channels", "8"], "another model than the configuration describes"),
    "learning parameters": (["--model.freeze.stages", "1"], "cannot change within a training"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_cannot_change_is_refused_and_leaves_the_run_as_it_is(stopped, capsys, change):
    options, message = REFUSED[change]
    last = stopped / "checkpoints/last.ckpt"
    assert main(["fit", "--ckpt_path", str(last), "--trainer.max_steps", "6", *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(stopped.glob("config.resume_*"))


def test_other_classes_are_refused(stopped, ade_root, capsys):
    root = ade_root()
    (root / "classes.txt").write_text("cat\nbird\ndog\n")
    last = stopped / "checkpoints/last.ckpt"
    assert main(["fit", "--ckpt_path", str(last), "--data.root", str(root)]) == 2
    assert "was trained on the classes cat, dog, bird (3), the data has cat, bird, dog (3)" in capsys.readouterr().err


def test_weights_alone_are_no_training(stopped, capsys):
    last = stopped / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    del checkpoint["optimizer_states"]
    torch.save(checkpoint, last)
    assert main(["fit", "--ckpt_path", str(last)]) == 2
    assert "holds weights alone" in capsys.readouterr().err
