from flatten_dense.data.split_checks import repeated_photos, unlearned_classes


def test_photos_of_two_splits_are_told_from_those_of_one():
    photos = [("train", "a", "x"), ("train", "b", "x"), ("val", "c", "x"), ("val", "d", "y")]
    across, within = repeated_photos(photos)
    assert (across.kind, across.severity, across.split) == ("in two splits", "error", "train and val")
    assert across.files == (("c", "the same pixels as a"),)
    assert (within.kind, within.severity, within.split) == ("twice", "warning", "train")
    assert within.files == (("b", "the same pixels as a"),)


def test_photos_that_could_not_be_read_do_not_repeat():
    assert list(repeated_photos([("train", "a", ""), ("val", "b", "")])) == []


def test_classes_that_are_absent_or_not_in_train():
    absent, untrained = unlearned_classes(["cat", "dog", "cow"], {"train": [3, 0, 0], "val": [1, 2, 0]})
    assert (absent.kind, absent.message) == ("class absent", "1 class(es) occur nowhere: cow")
    assert (untrained.kind, untrained.split) == ("class untrained", "val")
    assert untrained.message.endswith("cannot be learned: dog")


def test_without_splits_nothing_is_said_of_classes():
    assert list(unlearned_classes(["cat"], {})) == []
