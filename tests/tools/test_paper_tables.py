import importlib.util
import sys
from pathlib import Path

import pytest

from flatten_dense.commands.published import PUBLISHED

_SPEC = importlib.util.spec_from_file_location("paper_tables", Path(__file__).parents[2] / "tools" / "paper_tables.py")
paper_tables = importlib.util.module_from_spec(_SPEC)
sys.modules["paper_tables"] = paper_tables  # dataclasses look their module up
_SPEC.loader.exec_module(paper_tables)

TINY_MISMATCHES = {
    ("FLatten-DeiT-T", "6.1M"): paper_tables.REMARK,
    ("PVT-T", "13.229M"): paper_tables.LEFT_OUT,
    ("FLatten-PVT-T", "12.2M"): paper_tables.LEFT_OUT,
    ("FLatten-PVT-T", "12,150,504"): paper_tables.LEFT_OUT,
    ("Swin-T", "29M"): paper_tables.REMARK,
    ("CSwin-T", "23M"): paper_tables.REMARK,
}
OTHER_MISMATCHES = {
    ("PVT-S", "24.486M"): paper_tables.LEFT_OUT,
    ("FLatten-PVT-S", "21,670,248"): paper_tables.LEFT_OUT,
    ("FLatten-PVT-M", "37,242,216"): paper_tables.LEFT_OUT,
    ("FLatten-PVT-B", "50,649,192"): paper_tables.LEFT_OUT,
    ("PVTv2-B1", "13.1M"): paper_tables.REMARK,
    ("FLatten-PVTv2-B2", "22.6M"): paper_tables.UNKNOWN,
    ("Swin-B 384", "47.0G"): paper_tables.REMARK,
    ("FLatten-Swin-B 384", "46.5G"): paper_tables.UNKNOWN,
    ("CSwin-S", "6.9G"): paper_tables.UNKNOWN,
    ("FLatten-CSwin-S", "6.9G"): paper_tables.UNKNOWN,
    ("CSwin-B", "78M"): paper_tables.REMARK,
    ("FLatten-CSwin-B", "15.0G"): paper_tables.UNKNOWN,
    ("CSwin-B 384", "78M"): paper_tables.REMARK,
    ("FLatten-CSwin-B 384", "46.4G"): paper_tables.UNKNOWN,
}


def mismatches(rows):
    wrong = [check for check in paper_tables.check_all(rows) if not check.agrees]
    return {(check.row.label, check.printed): check.reason[0] for check in wrong}


def test_mismatches_of_the_tiny_models_are_the_known_ones():
    assert mismatches([row for row in PUBLISHED if row.label.endswith("-T")]) == TINY_MISMATCHES


@pytest.mark.slow
def test_mismatches_of_all_models_are_the_known_ones():
    assert mismatches(PUBLISHED) == TINY_MISMATCHES | OTHER_MISMATCHES


@pytest.mark.parametrize(
    ("count", "printed", "agrees"),
    [
        (12_150_504, "12.2M", True),
        (12_149_480, "12.2M", False),
        (12_149_480, "12,150,504", False),
        (12_150_504, "12,150,504", True),
        (28_600_000, "29M", True),
        (7_099_000_000, "~7.0G", True),
        (7_101_000_000, "~7.0G", False),
    ],
)
def test_a_count_is_compared_to_the_printed_digits(count, printed, agrees):
    assert paper_tables.agrees(count, printed) is agrees


def test_report_of_a_row(capsys):
    assert paper_tables.main(["FLatten-PVT-T"]) == 0
    printed = capsys.readouterr().out
    assert "12,150,504, ours 12,149,480" in printed
    assert "1,024 more: a final norm" in printed
    assert "3 figures checked, 1 match, 2 do not" in printed


def test_figures_that_are_not_established_are_listed(capsys):
    assert paper_tables.main(["FLatten-PVTv2-B0"]) == 0
    assert "FLatten-PVTv2-B0, FLOPs: not established" in capsys.readouterr().out


def test_unknown_row_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        paper_tables.main(["ResNet"])
    assert "no row has ResNet in its name" in capsys.readouterr().err
