import importlib
import json
import re
import subprocess
from importlib.metadata import version

import pytest

starts = importlib.import_module("experiments.starts")
CODE = {"flatten-dense": "1", "torch": "2", "lightning": "3", "timm": "4", "commit": "abc"}


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps({"experiment": "cores"}))  # as of earlier versions
    return path


def start(note, monkeypatch, **code):
    monkeypatch.setattr(starts, "this_code", lambda: CODE | code)
    return starts.note_start(note, 2, 1)


def test_each_start_is_added_to_what_the_file_holds(note, monkeypatch):
    start(note, monkeypatch)
    start(note, monkeypatch)
    content = json.loads(note.read_text())
    assert content["experiment"] == "cores"
    assert [(one["jobs"], one["threads"], one["code"]) for one in content["starts"]] == [(2, 1, CODE)] * 2


def test_the_same_code_is_no_change(note, monkeypatch):
    assert start(note, monkeypatch) == start(note, monkeypatch) == ""


def test_another_commit_or_version_is_told_in_one_line_until_the_end(note, monkeypatch):
    start(note, monkeypatch)
    told = "torch was 2 and is 9; commit was abc and is def"
    assert start(note, monkeypatch, torch="9", commit="def") == told
    assert start(note, monkeypatch, torch="9") == "torch was 2, 9 and is 9; commit was abc, def and is abc"


def test_the_code_is_versions_and_commit():
    code = starts.this_code()
    assert code["torch"] == version("torch")
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", code.get("commit", "0" * 40))


def test_without_git_there_is_no_commit(monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(128, command)

    monkeypatch.setattr(starts.subprocess, "run", fail)
    assert starts.this_code().keys() == CODE.keys() - {"commit"}
