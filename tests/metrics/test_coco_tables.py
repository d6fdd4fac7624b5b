import json

import pytest

from flatten_dense.metrics import STATS, coco_class_rows, coco_scores_as_dict, evaluate_coco


@pytest.fixture
def scores(split):
    return evaluate_coco(split.annotations, [], ("bbox", "segm"), category_ids=[7, 2, 90, 55])


def test_each_class_has_a_row_with_its_scores(scores):
    rows = coco_class_rows(scores)
    assert [row["class"] for row in rows] == ["kind 7", "kind 2", "kind 90", "55"]
    columns = ["class", "bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50", "truths", "detections"]
    assert list(rows[0]) == columns
    assert [rows[0][column] for column in columns[1:5]] == [0, 0, 0, 0]
    assert sum(row["truths"] for row in rows) == scores.truths.sum() > 0


def test_a_class_without_truth_has_no_score(scores):
    assert coco_class_rows(scores)[3]["bbox_AP"] is None


def test_classes_of_one_name_are_told_apart_by_their_ids(scores):
    twins = scores._replace(class_names=("cat", "cat", "dog", "bird"))
    assert [row["class"] for row in coco_class_rows(twins)] == ["cat (id 7)", "cat (id 2)", "dog", "bird"]


def test_json_holds_all_numbers_and_null_where_there_is_none(scores):
    found = json.loads(json.dumps(coco_scores_as_dict(scores), allow_nan=False))
    assert list(found) == ["bbox", "segm", "per_class", "num_images"]
    assert found["segm"] == dict.fromkeys(STATS, 0)
    assert found["per_class"]["55"]["segm_AP"] is None
    assert found["num_images"] == 9
