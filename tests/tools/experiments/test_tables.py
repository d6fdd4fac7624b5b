import csv
import importlib

from PIL import Image

runs, tables, variants = (importlib.import_module(f"experiments.{name}") for name in ("runs", "tables", "variants"))
FIRST, SECOND = variants.Variant("first", paper=70.5), variants.Variant("second")
EXPERIMENT = variants.Experiment("a/recipe", "A title", "attention", "DeiT-T", (FIRST, SECOND))


def result(variant, seed, value, seconds=100.0):
    return runs.Result(variant.name, seed, "top1", value, seconds, 12345, "somewhere")


def test_a_line_holds_mean_sample_deviation_range_each_seed_and_the_papers_score():
    found = {(FIRST, 0): result(FIRST, 0, 0.5), (FIRST, 1): result(FIRST, 1, 0.54, 110.0)}
    line = tables.table(EXPERIMENT, [0, 1], found, ()).splitlines()[2]
    assert line == "| first | 52.0 | 2.8 | 50.0 to 54.0 | 50.0 | 54.0 | 12,345 | 105 | 70.5 |"


def test_what_is_not_known_is_left_open():
    found = {(FIRST, 0): result(FIRST, 0, 0.5, None)}
    first, second = tables.table(EXPERIMENT, [0, 1], found, [(SECOND, 0)]).splitlines()[2:]
    assert first == "| first | 50.0 | - | 50.0 to 50.0 | 50.0 | - | 12,345 | - | 70.5 |"
    assert second == "| second | - | - | - | failed | - | - | - | - |"


def test_results_lie_in_files(tmp_path, monkeypatch):
    own = [runs.Run(FIRST, 0, tmp_path), runs.Run(SECOND, 0, tmp_path)]
    monkeypatch.setattr(runs.Run, "result", lambda run: result(run.variant, 0, 0.5) if run.variant == FIRST else None)
    text = tables.write_tables(tmp_path, EXPERIMENT, own, {own[1]})
    assert (tmp_path / "table.md").read_text() == text + "\n"
    with (tmp_path / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["variant"], row["seed"], row["value"], row["parameters"]) == ("first", "0", "0.5", "12345")
    assert Image.open(tmp_path / "plot.png").width > 500


def test_nothing_is_drawn_before_there_is_a_result(tmp_path):
    tables.write_tables(tmp_path, EXPERIMENT, [runs.Run(FIRST, 0, tmp_path)], ())
    assert not (tmp_path / "plot.png").exists()
