from flatten_dense.data.classification.classification_report import ClassificationCounts, ClassificationReport

TRAIN, VAL = ClassificationCounts(4, [3, 1], [30, 20, 50, 40]), ClassificationCounts(2, [0, 2], [])
REPORT = ClassificationReport("root", ("cat", "dog"), {"train": TRAIN, "val": VAL})


def test_a_row_per_class_and_two_columns_per_split():
    classes, _ = REPORT.tables()
    assert classes.columns == ("class", "train photos", "share", "val photos", "share")
    assert classes.rows == [("cat", "3", "75.0%", "0", "-"), ("dog", "1", "25.0%", "2", "100.0%")]
    assert classes.totals == [("all", "4", "", "2", "")]


def test_sizes_of_each_split():
    _, sizes = REPORT.tables()
    assert sizes.rows == [("train", "4", "20", "35", "50"), ("val", "2", "-", "-", "-")]


def test_of_many_classes_the_rarest_are_shown():
    names = tuple(f"class {index}" for index in range(150))
    counts = ClassificationCounts(150 * 151 // 2, list(range(150, 0, -1)), [])
    table, _ = ClassificationReport("root", names, {"train": counts}).tables()
    assert [row[0] for row in table.rows] == [f"class {index}" for index in range(149, 49, -1)]
    assert "the 100 rarest of 150" in table.title


def test_json_has_photos_by_name():
    splits = REPORT.to_dict()["splits"]
    assert splits["train"] == {
        "images": 4,
        "short_side": {"least": 20, "median": 35, "greatest": 50},
        "classes": {"cat": 3, "dog": 1},
    }
    assert splits["val"]["short_side"] is None


def test_without_classes_only_sizes_are_shown():
    (table,) = ClassificationReport("root", (), {"train": ClassificationCounts(4, [], [30])}).tables()
    assert table.columns[0] == "split"
