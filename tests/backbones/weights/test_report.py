import dataclasses

import pytest

from flatten_dense.backbones.weights.report import WeightReport, WeightRow, collapse


@pytest.fixture
def report():
    rows = (
        WeightRow("other part", "neck", "of the task", 500, 7),
        WeightRow("re-initialised", "stages.0.blocks.0.attn.core.scale", "fresh", 10),
        WeightRow("re-initialised", "stages.1.blocks.3.attn.core.scale", "fresh", 20),
        WeightRow("resized", "stages.0.pos_embed", "(7, 7) -> (14, 14)", 1960),
        WeightRow("resized", "stages.1.pos_embed", "(4, 4) -> (7, 7)", 490),
        WeightRow("loaded", "stages.0.blocks.0.mlp.fc1.weight", "", 4000),
        WeightRow("loaded", "stages.0.blocks.0.mlp.fc1.bias", "", 40),
    )
    return WeightReport("file.pth (plain state dict)", rows, 0.954, 1.0)


def test_cannot_be_changed(report):
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.coverage = 1


def test_rows_alike_are_one_line(report):
    lines = [(line.kind, line.name, line.detail, line.tensors, line.numel) for line in collapse(report.rows)]
    assert lines == [
        ("loaded", "", "", 2, 4040),
        ("resized", "stages.*.pos_embed", "(7, 7) -> (14, 14)", 1, 1960),
        ("resized", "stages.*.pos_embed", "(4, 4) -> (7, 7)", 1, 490),
        ("re-initialised", "stages.*.blocks.*.attn.core.scale", "fresh", 2, 30),
        ("other part", "neck", "of the task", 7, 500),
    ]


def test_text_is_a_table_under_its_source_with_the_coverage_below(report):
    text = str(report)
    lines = text.splitlines()
    assert lines[0] == "weights from file.pth (plain state dict)"
    assert lines[2].split() == ["tensors", "parameters"]
    assert lines[3].split() == ["loaded", "2", "4,040"]
    assert lines[4].endswith("1,960  stages.*.pos_embed: (7, 7) -> (14, 14)")
    assert lines[-1].startswith("coverage: 95.4% of the model's parameters, from 100.0%")


def test_rows_of_a_kind(report):
    assert [row.name for row in report.of_kind("resized")] == ["stages.0.pos_embed", "stages.1.pos_embed"]


def test_the_largest_of_a_kind_in_words(report):
    assert report.largest("resized") == "stages.*.pos_embed, 1,960 parameters ((7, 7) -> (14, 14))"
    assert report.largest("unused") == ""
