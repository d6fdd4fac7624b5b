import importlib
import json

import pytest

json_files = importlib.import_module("experiments.json_files")


def test_a_file_is_never_half_written(tmp_path, monkeypatch):
    path = tmp_path / "note.json"
    json_files.write_json(path, {"first": 1})

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(json_files.os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        json_files.write_json(path, {"second": 2})
    assert json.loads(path.read_text()) == {"first": 1}
    assert {*tmp_path.iterdir()} == {path, json_files.draft_of(path)}
