import argparse

import pytest
import torch
from benchmarks import correctness

from flatten_dense.ops.focused_linear_attention import focused_linear_attention


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("dtype", correctness.LIMITS, ids=str)
def test_a_form_that_is_right_passes(dtype, is_masked):
    found = correctness.errors("streaming", dtype, 12, 3, is_masked, "cpu")
    assert max(found) <= correctness.LIMITS[dtype]


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_a_form_that_is_wrong_is_told(factor, monkeypatch, capsys):
    def wrong(*args, **options):
        return focused_linear_attention(*args, **options) * factor

    monkeypatch.setattr(correctness, "focused_linear_attention", wrong)
    monkeypatch.setattr(correctness, "LIMITS", {torch.float32: 1e-3})
    monkeypatch.setattr(correctness, "HEADS", ((12, 3),))
    rows = correctness.correctness(argparse.Namespace(form="streaming", device="cpu"))
    assert [row["verdict"] for row in rows] == ["WRONG", "WRONG"]
    assert "2 of 2 cases are wrong" in capsys.readouterr().out
