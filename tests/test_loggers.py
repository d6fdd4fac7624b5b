import csv

import pytest

from flatten_dense.loggers import AppendingCSVLogger


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def first_part(tmp_path):
    """A run of 5 steps validated after step 3, as Lightning numbers the rows."""
    logger = AppendingCSVLogger(tmp_path)
    for step in range(3):
        logger.log_metrics({"train/loss": 10 - step}, step)
    logger.log_metrics({"val/mIoU": 0.5}, 2)
    for step in (3, 4):
        logger.log_metrics({"train/loss": 10 - step}, step)
    return tmp_path


def test_each_row_is_on_disk_at_once(tmp_path):
    logger = AppendingCSVLogger(tmp_path)
    logger.log_metrics({"train/loss": 1.5}, 0)
    assert rows(tmp_path / "metrics.csv") == [{"step": "0", "train/loss": "1.5"}]


def test_a_later_metric_gets_a_column_of_its_own(first_part):
    table = rows(first_part / "metrics.csv")
    assert list(table[0]) == ["step", "train/loss", "val/mIoU"]
    assert [row["val/mIoU"] for row in table] == ["", "", "", "0.5", "", ""]


def test_opening_again_appends(first_part):
    AppendingCSVLogger(first_part).log_metrics({"test/mIoU": 0.25}, 5)
    table = rows(first_part / "metrics.csv")
    assert len(table) == 7
    assert table[-1] == {"step": "5", "train/loss": "", "val/mIoU": "", "test/mIoU": "0.25"}


def test_resume_replaces_the_steps_done_again(first_part):
    AppendingCSVLogger(first_part, resume_step=3).log_metrics({"train/loss": 1.0}, 3)
    table = rows(first_part / "metrics.csv")
    assert [(row["step"], row["train/loss"]) for row in table] == [
        ("0", "10"),
        ("1", "9"),
        ("2", "8"),
        ("2", ""),  # the validation after three steps is not done again
        ("3", "1"),
    ]


def test_resume_keeps_the_replaced_rows_beside(first_part):
    AppendingCSVLogger(first_part, resume_step=3).log_metrics({"train/loss": 1.0}, 3)
    AppendingCSVLogger(first_part, resume_step=3).log_metrics({"train/loss": 2.0}, 3)
    replaced = rows(first_part / "metrics.replaced.csv")
    assert [(row["step"], row["train/loss"]) for row in replaced] == [("3", "7"), ("4", "6"), ("3", "1")]


def test_a_row_cut_short_by_a_kill_is_dropped(first_part):
    with (first_part / "metrics.csv").open("a") as file:
        file.write("5,0.12")
    AppendingCSVLogger(first_part).log_metrics({"train/loss": 4.0}, 5)
    assert rows(first_part / "metrics.csv")[-1]["train/loss"] == "4"
    assert len(rows(first_part / "metrics.csv")) == 7
