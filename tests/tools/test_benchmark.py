import importlib.util
import re
import sys
from pathlib import Path

import pytest
import timm
import torch

_SPEC = importlib.util.spec_from_file_location("benchmark", Path(__file__).parents[2] / "tools" / "benchmark.py")
benchmark = importlib.util.module_from_spec(_SPEC)
sys.modules["benchmark"] = benchmark  # dataclasses look their module up
_SPEC.loader.exec_module(benchmark)


def test_siblings_prints_a_table(capsys, monkeypatch):
    micro = benchmark.Pair("flatten_pvt_test", "flatten_pvt_test", {"attention": "SSSS"}, "ours")
    monkeypatch.setattr(benchmark, "SIBLINGS", (micro,))
    assert benchmark.main(["siblings", "--repetitions", "1", "--warm_up", "0", "--batch_size", "2"]) == 0
    printed = capsys.readouterr().out
    assert "| flatten_pvt_test | " in printed
    assert f"torch {torch.__version__}" in printed
    assert "2 image(s) of 224 x 224" in printed


@pytest.mark.parametrize("pair", benchmark.SIBLINGS, ids=lambda pair: pair.name)
def test_siblings_exist(pair):
    assert timm.is_model(pair.name)
    assert timm.is_model(pair.sibling)


def test_every_family_has_a_sibling():
    families = {timm.model_entrypoint(pair.name).__module__.rpartition(".")[2] for pair in benchmark.SIBLINGS}
    assert families == {"deit", "pvt", "pvt_v2", "swin", "cswin"}


def test_calls_take_turns_and_warm_up_is_not_timed():
    order = []
    times = benchmark.alternating_medians([lambda: order.append("a"), lambda: order.append("b")], 2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert len(times) == 2


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
    scores = benchmark.CocoExample.make(images=20, per_image=50, classes=4).ours("pycocotools")
    assert all(0.1 < score < 0.9 for score in scores[:3])
