import pytest
import torch

from flatten_dense.backbones.weights.classifier import fit_classifier


def head(classes, start, channels=3):
    return {
        "head.weight": start + torch.arange(float(classes))[:, None].repeat(1, channels),
        "head.bias": start + torch.arange(float(classes)),
    }


def kinds(rows):
    return {row.name: (row.kind, row.detail) for row in rows}


def test_the_same_classes_are_loaded():
    given = head(2, 100)
    rows, values = fit_classifier(head(2, 0), given, None, None)
    assert values == given
    assert {row.kind for row in rows} == {"loaded"}


def test_names_of_one_side_alone_decide_nothing():
    given = head(2, 100)
    assert fit_classifier(head(2, 0), given, ["a", "b"], None)[1] == given
    assert fit_classifier(head(2, 0), given, None, ["a", "b"])[1] == given


def test_other_classes_stay_fresh():
    rows, values = fit_classifier(head(2, 0), head(5, 100), None, None)
    assert values == {}
    assert kinds(rows)["head.weight"] == ("re-initialised", "5 classes in the file, 2 here")


def test_rows_are_copied_by_name_and_the_others_stay():
    rows, values = fit_classifier(head(3, 0), head(2, 100), ["sky", "cat", "dog"], ["dog", "sky"])
    assert values["head.bias"].tolist() == [101, 1, 100]
    assert values["head.weight"].tolist() == [[101] * 3, [1] * 3, [100] * 3]
    of_weight = [(row.kind, row.detail, row.numel, row.tensors) for row in rows if row.name == "head.weight"]
    assert of_weight == [
        ("copied by name", "2 of 3 classes", 6, 1),
        ("re-initialised", "not in the file: cat", 3, 0),
    ]


def test_the_same_classes_in_another_order_are_copied_by_name():
    rows, values = fit_classifier(head(2, 0), head(2, 100), ["a", "b"], ["b", "a"])
    assert values["head.bias"].tolist() == [101, 100]
    assert {row.kind for row in rows} == {"copied by name"}


def test_the_same_names_are_loaded_even_if_some_are_alike():
    given = head(3, 100)
    assert fit_classifier(head(3, 0), given, ["a", "crane", "crane"], ["a", "crane", "crane"])[1] == given


def test_a_name_that_is_there_twice_is_not_looked_up():
    _, values = fit_classifier(head(2, 0), head(3, 100), ["a", "crane"], ["crane", "a", "crane"])
    assert values["head.bias"].tolist() == [101, 1]


def test_no_class_in_common_leaves_all_fresh():
    rows, values = fit_classifier(head(2, 0), head(2, 100), ["a", "b"], ["c", "d"])
    assert values == {}
    assert kinds(rows)["head.bias"] == ("re-initialised", "no class in common")


def test_the_models_own_rows_are_not_written_to():
    own = head(2, 0)
    fit_classifier(own, head(2, 100), ["a", "b"], ["b", "c"])
    assert own["head.bias"].tolist() == [0, 1]


def test_a_model_without_classifier_drops_it():
    rows, values = fit_classifier({}, head(2, 100), ["a", "b"], None)
    assert values == {}
    assert kinds(rows)["head.weight"] == ("dropped", "the model has no classifier")


def test_a_file_without_classifier_leaves_it_fresh():
    assert kinds(fit_classifier(head(2, 0), {}, None, None)[0])["head.bias"] == (
        "re-initialised",
        "the file has no classifier",
    )


def test_another_width_stays_fresh():
    rows, values = fit_classifier(head(2, 0), head(2, 100, channels=4), None, None)
    assert kinds(rows)["head.weight"] == ("re-initialised", "(2, 4) in the file")
    assert values.keys() <= {"head.bias"}


@pytest.mark.parametrize(
    ("names", "given_names", "message"),
    [
        (["a"], None, "class_names must name the 2 classes of the classifier, got 1"),
        (None, ["a", "b"], "source_class_names must name the 5 classes of the classifier, got 2"),
    ],
)
def test_names_that_do_not_count_the_rows_are_refused(names, given_names, message):
    with pytest.raises(ValueError, match=message):
        fit_classifier(head(2, 0), head(5, 100), names, given_names)
