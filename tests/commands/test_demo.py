import json

import pytest

from flatten_dense.cli import main
from flatten_dense.commands import demo


@pytest.fixture
def small_demo(monkeypatch, tmp_path):
    """The demo on 16 scenes, for 2 steps."""
    monkeypatch.setattr(demo, "NUM_TRAIN", 16)
    monkeypatch.setattr(demo, "NUM_VAL", 8)
    steps = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "1", "--trainer.enable_progress_bar", "false"]
    return ["demo", "--output", str(tmp_path / "runs"), *steps]


def test_demo_trains_evaluates_predicts_and_says_where_everything_is(small_demo, tmp_path, caplog):
    assert main(small_demo) == 0
    (run,) = (tmp_path / "runs/demo").iterdir()
    (tested,) = (tmp_path / "runs/demo-test").iterdir()
    metrics = json.loads((tested / "metrics.json").read_text())
    assert f"mIoU {metrics['mIoU']:.3f}" in caplog.text
    assert len(list((run / "predictions/masks").iterdir())) == 8
    assert (tested / "pictures/test.png").is_file()
    assert (run / "curves.png").is_file()


def test_the_demo_of_classification(small_demo, tmp_path, caplog):
    assert main([*small_demo, "--task", "classification"]) == 0
    (run,) = (tmp_path / "runs/demo").iterdir()
    (tested,) = (tmp_path / "runs/demo-test").iterdir()
    assert f"top-1 {json.loads((tested / 'metrics.json').read_text())['top1']:.3f}" in caplog.text
    assert (run / "predictions/predictions.png").is_file()


def test_a_second_demo_reuses_the_data_and_keeps_the_first_run(small_demo, tmp_path):
    assert main(small_demo) == 0
    written = (tmp_path / "runs/shapes_data/shapes.json").stat().st_mtime_ns
    assert main(small_demo) == 0
    assert (tmp_path / "runs/shapes_data/shapes.json").stat().st_mtime_ns == written
    assert len(list((tmp_path / "runs/demo").iterdir())) == 2
