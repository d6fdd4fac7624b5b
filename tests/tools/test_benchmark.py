import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from flatten_dense.profiling import Pass

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # as for a script that lies there
benchmark = importlib.import_module("benchmark")
coco, siblings, step, timing = (
    importlib.import_module(f"benchmarks.{name}") for name in ("coco", "siblings", "step", "timing")
)


def test_siblings_prints_a_table(capsys, monkeypatch):
    def passes(cases, repetitions, warm_up):
        seconds = {"flatten_swin_tiny": 0.1, "swin_tiny_patch4_window7_224": 0.4}
        assert cases[1].options == {"img_size": 512}
        return [[Pass(seconds[case.name], 2**20)] * repetitions for case in cases]

    monkeypatch.setattr(siblings, "alternating_passes", passes)
    options = ["--models", "flatten_swin_tiny", "--sizes", "512", "--batch_size", "2"]
    assert benchmark.main(["siblings", *options]) == 0
    printed = capsys.readouterr().out
    assert (
        "| flatten_swin_tiny | 512 | 100.0 | swin_tiny_patch4_window7_224 (timm's) | 400.0 | 0.25 | 1 | 1 | 1.00 |"
        in printed
    )
    assert f"torch {torch.__version__}" in printed
    assert "2 image(s)" in printed


@pytest.mark.parametrize("pair", siblings.SIBLINGS, ids=lambda pair: pair.name)
def test_siblings_exist(pair):
    assert timm.is_model(pair.name)
    assert timm.is_model(pair.sibling)


def test_every_family_has_a_sibling():
    families = {timm.model_entrypoint(pair.name).__module__.rpartition(".")[2] for pair in siblings.SIBLINGS}
    assert families == {"deit", "pvt", "pvt_v2", "swin", "cswin"}


def test_calls_take_turns_and_warm_up_is_not_timed():
    order = []
    times = timing.alternating_medians([lambda: order.append("a"), lambda: order.append("b")], 2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert len(times) == 2


def test_attention_compares_every_form_that_can_do_it(capsys):
    options = ["--sizes", "8", "--dim", "12", "--heads", "3", "--repetitions", "1", "--warm_up", "0"]
    assert benchmark.main(["attention", *options]) == 0
    printed = capsys.readouterr().out
    for what in ("inference", "training"):
        for dtype in ("float32", "bfloat16"):
            row = re.search(rf"^\| {what} \| {dtype} \| 8 \| (.*) \|$", printed, re.MULTILINE)[1].split(" | ")
            _, no_option, *_, reference = map(float, (cell for cell in row if cell != "-"))
            assert min(no_option, reference) > 0
    assert f"torch {torch.__version__}" in printed


def test_bad_number_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["siblings", "--repetitions", "0"])
    assert "must be an integer from 1, got '0'" in capsys.readouterr().err


def test_loader_times_every_step_and_the_workers(capsys, ade_root):
    options = ["--images", "4", "--batch_size", "2", "--workers", "1"]
    assert benchmark.main(["loader", "--root", str(ade_root()), *options]) == 0
    printed = capsys.readouterr().out
    assert all(f"| {step} | " in printed for step in ("read and check", "PhotometricDistortion", "together"))
    assert "1 worker(s), batches of 2: " in printed


def test_coco_compares_the_evaluations_and_their_numbers(capsys):
    assert benchmark.main(["coco", "--images", "6", "--detections", "20", "--classes", "4", "--repetitions", "1"]) == 0
    printed = capsys.readouterr().out
    for name in ("ours, pycocotools", "COCOeval alone", "MeanAveragePrecision"):
        apart = float(re.search(rf"^\| {name} \|.* (\S+) \|$", printed, re.MULTILINE)[1])
        assert apart < 1e-6
    assert "6 images, 20 detections each, 4 classes" in printed


def test_the_made_up_split_has_hits_and_misses():
    scores = coco.CocoExample.make(images=20, per_image=50, classes=4).ours("pycocotools")
    assert all(0.1 < score < 0.9 for score in scores[:3])


@pytest.mark.parametrize("task", step.MODELS)
def test_a_step_is_timed_beside_a_bare_loops(task, capsys):
    options = ["--size", "32", "--batch_size", "2", "--steps", "40", "--backbone", "flatten_pvt_test"]
    assert benchmark.main(["step", "--task", task, *options]) == 0
    printed = capsys.readouterr().out
    for clock in ("wall", "CPU"):
        row = re.search(rf"^\| {clock} \| (\S+) \| (\S+) \| \S+ \| \S+ \|$", printed, re.MULTILINE)
        assert min(float(row[1]), float(row[2])) > 0


def test_a_row_that_is_logged_once_in_a_block_counts():
    logged = [1.0] * 9 + [2.0]
    assert step.block_median(np.array([9.0] * 20 + logged * 3 + [50.0] * 10 + [7.0])) == pytest.approx(1.1)
