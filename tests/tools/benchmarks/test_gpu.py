import argparse
import json

import pytest
import torch
from benchmarks import gpu


@pytest.fixture
def options(tmp_path):
    return argparse.Namespace(
        output=str(tmp_path / "out.json"), threads=1, device="cpu", batch_size=1, repetitions=1, warm_up=0
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(options):
    with pytest.raises(SystemExit, match=r"^no CUDA device here: .*$"):
        gpu.gpu(options)


def test_each_part_gets_its_own_options_and_leaves_its_rows(options, capsys):
    def part(own):
        return [{"dims": own.dims, "device": own.device}]

    gpu.run_parts(options, {"first part": (part, {"dims": [3]}), "second": (part, {"dims": [4]})})
    with open(options.output) as file:
        written = json.load(file)
    assert written["first part"] == [{"dims": [3], "device": "cpu"}]
    assert written["second"] == [{"dims": [4], "device": "cpu"}]
    assert "## First part" in capsys.readouterr().out


def test_what_was_measured_before_a_failure_is_kept(options):
    def fail(own):
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        gpu.run_parts(options, {"first": (lambda own: [{"ms": 1}], {}), "second": (fail, {})})
    with open(options.output) as file:
        assert json.load(file)["first"] == [{"ms": 1}]


def test_wrong_results_end_in_an_error_after_all_parts(options):
    parts = {"first": (lambda own: [{"verdict": "WRONG"}, {"verdict": "good"}], {}), "second": (lambda own: [], {})}
    with pytest.raises(SystemExit, match="1 cases are not equal to the naive form"):
        gpu.run_parts(options, parts)
    with open(options.output) as file:
        assert json.load(file)["second"] == []


@pytest.mark.slow
def test_every_part_runs(options, monkeypatch):
    small = {"sizes": [32, 64], "dims": [64], "side": 8, "form": "streaming", "models": []}
    small |= {"model": "flatten_pvt_test", "seconds": 0}
    parts = {
        title: (run, {**own, **{k: v for k, v in small.items() if k in own}}) for title, (run, own) in gpu.PARTS.items()
    }
    results = gpu.run_parts(options, parts)
    assert all(rows for title, rows in results.items() if "softmax" not in title)
