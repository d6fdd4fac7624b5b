from pathlib import Path

from flatten_dense.commands.runs import new_run, newest_config, run_of, save_config


def test_two_runs_in_one_second_do_not_share_a_directory(tmp_path):
    runs = {new_run(tmp_path, "name") for _ in range(3)}
    assert len(runs) == 3
    assert all(run.is_dir() and run.parent == tmp_path / "name" for run in runs)


def test_further_processes_make_no_directory(tmp_path, monkeypatch):
    run = new_run(tmp_path, "name")
    monkeypatch.setattr("flatten_dense.commands.runs.rank_zero_only.rank", 1)
    assert new_run(tmp_path, "name") == run
    assert [path.name for path in (tmp_path / "name").iterdir()] == [run.name]


def test_the_newest_config_is_the_last_resume(tmp_path):
    for number in range(12):
        save_config(tmp_path, str(number))
    assert newest_config(tmp_path).read_text() == "11"


def test_first_config_is_kept_and_later_ones_lie_beside_it(tmp_path):
    for text in ("first", "second", "third"):
        save_config(tmp_path, text)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {"config.yaml": "first", "config.resume_1.yaml": "second", "config.resume_2.yaml": "third"}


def test_run_of_a_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("")
    assert run_of(tmp_path / "checkpoints" / "last.ckpt") == tmp_path


def test_a_checkpoint_moved_elsewhere_has_no_run(tmp_path):
    assert run_of(tmp_path / "last.ckpt") is None
    assert run_of(Path("last.ckpt")) is None
