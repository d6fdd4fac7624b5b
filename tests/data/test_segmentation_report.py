from flatten_dense.data.segmentation_report import SegmentationReport, SplitCounts

REPORT = SegmentationReport("root", ("cat", "dog"), {"train": SplitCounts(4, 200, 100, [75, 25], [3, 1])})


def test_the_table_shows_shares_of_labelled_pixels():
    (table,) = REPORT.tables()
    assert table.columns == ("class", "train pixels", "masks")
    assert table.rows == [("cat", "75.000%", "3"), ("dog", "25.000%", "1")]
    assert table.totals == [("ignored, of all pixels and masks", "50.000%", "4")]


def test_json_has_pixels_and_images_by_name():
    split = REPORT.to_dict()["splits"]["train"]
    assert split["classes"] == {"cat": {"pixels": 75, "images": 3}, "dog": {"pixels": 25, "images": 1}}
    assert (split["pairs"], split["ignored_share"]) == (4, 0.5)


def test_without_classes_there_is_no_table():
    assert SegmentationReport("root", (), {"train": SplitCounts(4, 200, 100, [], [])}).tables() == []
