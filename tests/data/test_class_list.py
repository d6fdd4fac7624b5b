import pytest

from flatten_dense.data.class_list import ClassList, check_same_classes, read_class_list, read_labels, with_label_map
from flatten_dense.data.images import DataError
from flatten_dense.structures import LabelSpace, default_palette

# The first rows of ADE20K's own table, one with a stray blank after the index and one after the name.
ADE_TABLE = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1576\t11664\t1172\twall\n2 \t0.1072\t6046\t612\tbuilding, edifice \n"


def test_plain_list_is_one_name_per_line(tmp_path):
    (tmp_path / "a.txt").write_text("\ufefftraffic light\r\n\r\n sign, board \r\n", encoding="utf-8")
    assert read_class_list(tmp_path / "a.txt") == ClassList(("traffic light", "sign, board"))


@pytest.mark.parametrize(
    ("table", "names", "first"),
    [
        (ADE_TABLE, ("wall", "building"), 1),
        ("Idx\tName\n0\tsky\n1\tsign symbol\n", ("sky", "sign symbol"), 0),
        ("Idx,Ratio,Train,Val,Stuff,Name\n1,0.1,2,3,1,wall\n2,0.1,2,3,0,door;double door\n", ("wall", "door"), 1),
    ],
)
def test_table_gives_the_first_synonyms_and_the_first_index(tmp_path, table, names, first):
    (tmp_path / "a.txt").write_text(table)
    assert read_class_list(tmp_path / "a.txt") == ClassList(names, None, first)


@pytest.mark.parametrize(
    "text", ["64 128 64\tsign board\n0 0 192\t\tsky\n", "name,r,g,b\nsign board,64,128,64\nsky, 0, 0, 192\n"]
)
def test_colours_stand_beside_the_names(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert read_class_list(tmp_path / "a.txt") == ClassList(("sign board", "sky"), ((64, 128, 64), (0, 0, 192)))
    assert read_labels(tmp_path, tmp_path / "a.txt").palette == ((64, 128, 64), (0, 0, 192))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "lacks a name"),
        ("\n \n", "lacks a name"),
        ("cat\ndog\ncat\n", "repeats cat"),
        ("Idx\tName\n1\tcat\n3\tdog\n", "count up by one"),
        ("Idx\tName\n", "count up by one"),
        ("Idx\tName\n1\tcat\ndog\n", "'dog' does not fit"),
        ("Idx\tName\none\tcat\n", "does not fit"),
        (b"\xff\xfe\x00c", "UTF-8"),
        ("1 2 3 cat\ndog\n", "'dog' has no colour"),
        ("1 2 3 cat\n1 2 256 dog\n", "'1 2 256 dog' has no colour"),
        (None, "no such class list"),
    ],
)
def test_faulty_list_is_refused(tmp_path, text, reason):
    path = tmp_path / "a.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"a\.txt.*{reason}"):
        read_class_list(path)


def test_list_in_the_folder_is_found(tmp_path):
    (tmp_path / "objectInfo150.txt").write_text(ADE_TABLE)
    assert read_labels(tmp_path, reduce_zero_label=True).class_names == ("wall", "building")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert read_labels(tmp_path).class_names == ("cat",)


def test_named_list_goes_before_the_folders_own(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "other.txt").write_text("dog\nbird\n")
    labels = read_labels(tmp_path, tmp_path / "other.txt", num_classes=2, ignore_index=200)
    assert labels == LabelSpace(("dog", "bird"), default_palette(2), False, 200)


def test_number_of_classes_alone_numbers_the_names(tmp_path):
    assert read_labels(tmp_path, num_classes=3).class_names == ("class 1", "class 2", "class 3")


def test_wrong_number_of_classes_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"--data.num_classes is 3, but .*classes\.txt names 2 classes \(cat, dog\)"):
        read_labels(tmp_path, num_classes=3)


@pytest.mark.parametrize(("folder", "reason"), [(".", "neither classes.txt nor"), ("missing", "no such folder")])
def test_unknown_classes_are_refused(tmp_path, folder, reason):
    with pytest.raises(DataError, match=f"--data.root .*{reason}"):
        read_labels(tmp_path / folder)


@pytest.mark.parametrize(("first", "reduce", "advice"), [(1, False, "true"), (0, True, "false")])
def test_table_that_contradicts_the_zero_label_is_refused(tmp_path, first, reduce, advice):
    (tmp_path / "classes.txt").write_text(f"Idx\tName\n{first}\tcat\n{first + 1}\tdog\n")
    with pytest.raises(DataError, match=f"counts its classes from {first}.*--data.reduce_zero_label {advice}"):
        read_labels(tmp_path, reduce_zero_label=reduce)
    assert read_labels(tmp_path, reduce_zero_label=not reduce).num_classes == 2


def test_folder_of_another_number_of_classes_does_not_fit_a_trained_model(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"trained on 3 classes .* names 2 \(cat, dog\)"):
        check_same_classes(tmp_path, LabelSpace(("a", "b", "c"), default_palette(3)))


def test_other_names_than_a_trained_models_only_warn(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.warns(UserWarning, match="cat, dog.*trained with a, b"):
        check_same_classes(tmp_path, LabelSpace(("a", "b"), default_palette(2)))


@pytest.mark.filterwarnings("error")
def test_same_or_unknown_classes_fit_a_trained_model(tmp_path):
    labels = LabelSpace(("cat", "dog"), default_palette(2))
    check_same_classes(tmp_path, labels)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    check_same_classes(tmp_path, labels)


def test_a_label_map_names_the_classes_where_no_list_does(tmp_path):
    (tmp_path / "map.txt").write_text("7,cat\n9,dog\n")
    labels = read_labels(tmp_path, label_map=tmp_path / "map.txt")
    assert labels == LabelSpace(("cat", "dog"), default_palette(2), label_map=((7, 0), (9, 1)))


def test_a_label_map_takes_order_and_colours_of_the_list(tmp_path):
    (tmp_path / "map.txt").write_text("7,cat\n9,dog\n")
    (tmp_path / "classes.txt").write_text("1 2 3 dog\n4 5 6 cat\n")
    labels = read_labels(tmp_path, label_map=tmp_path / "map.txt")
    assert labels == LabelSpace(("dog", "cat"), ((1, 2, 3), (4, 5, 6)), label_map=((7, 1), (9, 0)))


def test_a_label_map_says_itself_what_zero_means(tmp_path):
    (tmp_path / "map.txt").write_text("7,cat\n")
    with pytest.raises(DataError, match="reduce_zero_label is for masks without a label map"):
        read_labels(tmp_path, reduce_zero_label=True, label_map=tmp_path / "map.txt")


def test_a_trained_model_reads_masks_of_other_values(tmp_path):
    (tmp_path / "map.txt").write_text("7,dog\n9,cat\n")
    trained = LabelSpace(("cat", "dog"), ((1, 2, 3), (4, 5, 6)), reduce_zero_label=True)
    labels = with_label_map(trained, tmp_path / "map.txt")
    assert labels == LabelSpace(("cat", "dog"), trained.palette, label_map=((7, 1), (9, 0)))


def test_notes_are_no_classes(tmp_path):
    (tmp_path / "classes.txt").write_text("# my classes\ncat\n\ndog\n")
    assert read_class_list(tmp_path / "classes.txt").names == ("cat", "dog")


@pytest.mark.parametrize("text", ["0 cat\n1 dog\n", "1: cat\n2: dog\n", "0,cat\n1,dog\n"])
def test_a_numbered_list_is_not_taken_for_names(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"classes\.txt: the lines are numbered .* header Idx,Name"):
        read_class_list(tmp_path / "classes.txt")


@pytest.mark.parametrize("text", ["0 128 64 128 road\n1 0 0 0 sky\n", "0,road,128,64,128\n1,sky,0,0,0\n"])
def test_a_numbered_list_with_colours_is_refused(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"classes\.txt: the lines have a number beside name and colour"):
        read_class_list(tmp_path / "classes.txt")


def test_names_that_begin_with_numbers_are_names(tmp_path):
    (tmp_path / "classes.txt").write_text("3 wheeler\n2 wheeler\n")
    assert read_class_list(tmp_path / "classes.txt").names == ("3 wheeler", "2 wheeler")
