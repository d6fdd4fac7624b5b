from flatten_dense.callbacks.class_table import write_class_table


def test_a_number_that_there_is_not_leaves_its_cell_empty(tmp_path):
    write_class_table(tmp_path / "table.csv", [{"class": "a, b", "AP": None}, {"class": "c", "AP": 0.5}])
    assert (tmp_path / "table.csv").read_text().splitlines() == ["class,AP", '"a, b",', "c,0.5"]
