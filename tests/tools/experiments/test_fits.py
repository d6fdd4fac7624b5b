import importlib

import pytest

fits = importlib.import_module("experiments.fits")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"mIoU": 0.5, "mAcc": 0.7}, ("mIoU", 0.5)),
        ({"top1": 0.6, "top5": 0.9}, ("top1", 0.6)),
        ({"bbox": {"AP": 0.4, "AP50": 0.8}}, ("box AP", 0.4)),
    ],
)
def test_the_score_is_the_tasks_own(metrics, expected):
    assert fits.main_score(metrics) == expected


def test_the_newest_run_is_the_newest_that_has_the_file(tmp_path):
    for name, file in (
        ("2026-01-01", "checkpoints/last.ckpt"),
        ("2026-01-02", "checkpoints/last.ckpt"),
        ("2026-02", "x"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).touch()
    assert fits.newest_run(tmp_path, "checkpoints/last.ckpt") == tmp_path / "2026-01-02"
    assert fits.newest_run(tmp_path, "x") == tmp_path / "2026-02"
    assert fits.newest_run(tmp_path / "nowhere", "x") is None


def test_a_fit_is_the_command_line_with_threads_of_its_own(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(fits.subprocess, "Popen", lambda command, **how: seen.update(how, command=command))
    (tmp_path / "log").write_text("before\n")
    fits.start_fit(["-c", "recipe"], tmp_path / "log", threads=3, keep_open=(7,))
    assert seen["command"][1:] == ["-m", "flatten_dense.cli", "fit", "-c", "recipe"]
    assert seen["pass_fds"] == (7,)
    assert seen["env"]["OMP_NUM_THREADS"] == seen["env"]["MKL_NUM_THREADS"] == "3"
    assert (tmp_path / "log").read_text() == "before\n"


def test_the_last_words_are_the_end_of_the_log(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * 100 + b"\xff the end\n")
    assert fits.last_words(tmp_path / "log", 11) == "x\ufffd the end"
