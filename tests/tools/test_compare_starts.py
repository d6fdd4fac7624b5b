import csv
import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # as for a script that lies there
compare_starts = importlib.import_module("compare_starts")


def row(start, seed, value, seconds=100):
    return {"start": start, "seed": seed, "score": "mIoU", "value": value, "seconds": seconds, "run": "somewhere"}


def test_the_table_has_a_line_for_each_start():
    rows = [row("random weights", 0, 0.25), row("given weights", 0, 0.5), row("random weights", 1, 0.35, 110)]
    first, second = compare_starts.table(rows).splitlines()[2:]
    assert first == "| random weights | 0.250 | 0.350 | 0.300 | 0.250 to 0.350 | 105 |"
    assert second == "| given weights | 0.500 | - | 0.500 | 0.500 to 0.500 | 100 |"


def test_both_starts_get_each_seed_by_turns(tmp_path, monkeypatch):
    calls = []

    def run(recipe, name, seed, output, options):
        calls.append((name, seed, options))
        return row(name, seed, 0.5)

    monkeypatch.setattr(compare_starts, "run", run)
    arguments = ["recipe", "--weights", "w.ckpt", "--seeds", "3", "4", "--output", str(tmp_path / "out")]
    arguments += ["--data.root", "d"]
    monkeypatch.setattr(sys, "argv", ["compare_starts.py", *arguments])
    compare_starts.main()
    common = ["--data.root", "d"]
    given = [*common, "--model.weights", "w.ckpt"]
    expected = [("random weights", 3, common), ("given weights", 3, given)]
    assert calls == [*expected, *((name, 4, options) for name, _, options in expected)]
    with (tmp_path / "out/starts.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_failing_fit_shows_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"with seed 0 failed:\n+.*no such recipe"):
        compare_starts.run("nothing", "random weights", 0, tmp_path, [])


@pytest.mark.slow
def test_starts_of_a_real_fit(fitted, tmp_path):
    found = [
        compare_starts.run(str(fitted.recipe), name, 0, tmp_path, ["--data.root", str(fitted.data), *options])
        for name, options in (("random weights", []), ("given weights", ["--model.weights", str(fitted.best)]))
    ]
    assert [found[0]["score"], found[1]["score"]] == ["mIoU", "mIoU"]
    assert all((Path(row["run"]) / "checkpoints/best.ckpt").is_file() for row in found)
