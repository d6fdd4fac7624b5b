from benchmarks import table


def test_a_table_appears_row_by_row(capsys):
    own = table.Table({"name": "", "ms": ".1f"})
    assert capsys.readouterr().out == "\n| name | ms |\n|---|---|\n"
    own.add("a", 1.25)
    assert capsys.readouterr().out == "| a | 1.2 |\n"


def test_nothing_is_a_dash_and_words_stay(capsys):
    own = table.Table({"name": "", "ms": ".1f", "GiB": ".1f"})
    own.add("a", None, "too much")
    assert capsys.readouterr().out.endswith("| a | - | too much |\n")


def test_rows_keep_the_numbers():
    own = table.Table({"name": "", "ms": ".1f"})
    own.add("a", 1.26)
    assert own.rows == [{"name": "a", "ms": 1.26}]


def test_a_ratio_to_nothing_is_none():
    assert table.ratio(3, 2) == 1.5
    assert table.ratio(3, 0) is None
