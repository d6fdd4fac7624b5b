from pathlib import Path

import pytest

from flatten_dense.data.images import DataError
from flatten_dense.data.pairs import Pairing, pair_files


@pytest.fixture
def folders(tmp_path):
    """Write empty files; return the folders of photos and masks."""

    def write(images: str, masks: str) -> tuple[Path, Path]:
        for folder, names in (("images", images), ("masks", masks)):
            for name in names.split():
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return tmp_path / "images", tmp_path / "masks"

    return write


def names(pairing: Pairing) -> list[tuple[str, str]]:
    return [(image.name, mask.name) for image, mask in pairing.samples]


def test_images_of_any_type_pair_by_stem(folders):
    found = pair_files(*folders("b.x.TIF a.webp", "a.png b.x.PNG notes.txt .hidden.png"))
    assert names(found) == [("a.webp", "a.png"), ("b.x.TIF", "b.x.PNG")]
    assert found.problems() == {}


def test_suffixes_choose_files_and_are_stripped(folders):
    found = pair_files(
        *folders("a_photo.png a_depth.png", "a_ids.png a_colour.png a_polygons.json"), "_photo.png", "_ids.png"
    )
    assert names(found) == [("a_photo.png", "a_ids.png")]
    assert found.problems() == {}


def test_a_suffix_may_leave_out_the_type(folders):
    found = pair_files(*folders("a.jpg b.png", "a_L.png b_L.png"), mask_suffix="_L")
    assert names(found) == [("a.jpg", "a_L.png"), ("b.png", "b_L.png")]


def test_subfolders_are_part_of_the_name(folders):
    found = pair_files(*folders("x/a.jpg y/a.jpg b.jpg", "x/a.png b.png z/a.png"))
    assert names(found) == [("b.jpg", "b.png"), ("a.jpg", "a.png")]
    assert [path.parent.name for path in (*found.lone_images, *found.lone_masks)] == ["y", "z"]


@pytest.mark.parametrize("line", ["a", "a.jpg", "a\r", "\ufeffa\n\n"])
def test_a_list_chooses_the_files_of_a_split(folders, tmp_path, line):
    (tmp_path / "train.txt").write_text(line, encoding="utf-8")
    found = pair_files(*folders("a.jpg b.jpg c.jpg", "a.png b.png d.png"), listed=tmp_path / "train.txt")
    assert names(found) == [("a.jpg", "a.png")]
    assert found.problems() == {}, "what the list leaves out need not pair up"


def test_listed_names_with_subfolder_and_suffix(folders, tmp_path):
    (tmp_path / "train.txt").write_text("x/a_photo.png\n")
    found = pair_files(
        *folders("x/a_photo.png y/a_photo.png", "x/a.png y/a.png"), "_photo.png", "", tmp_path / "train.txt"
    )
    assert [image.parent.name for image, _ in found.samples] == ["x"]


def test_faults_of_a_list_are_found(folders, tmp_path):
    (tmp_path / "train.txt").write_text("a\nc\nd\ne\na\n")
    found = pair_files(*folders("a.jpg b.jpg c.jpg", "a.png b.png d.png"), listed=tmp_path / "train.txt")
    assert ([path.name for path in found.lone_images], [path.name for path in found.lone_masks]) == (
        ["c.jpg"],
        ["d.png"],
    )
    assert (found.not_found, found.listed_twice) == (["e"], ["a"])


def test_files_that_share_a_name_are_found(folders):
    found = pair_files(*folders("a.jpg a.png", "a.png"))
    assert [path.name for path in found.repeated_images] == ["a.jpg", "a.png"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"image_suffix": "_x"}, r"images: .*no image ending in '_x', only 1 other files \(such as a\.jpg\)"),
        ({"masks": Path("nowhere")}, "nowhere: no such folder"),
        ({"listed": Path("nowhere.txt")}, r"nowhere\.txt: no such list of a split"),
        ({"listed": Path("/dev/null")}, "the list of the split is empty"),
    ],
)
def test_what_is_not_there_is_named(folders, options, reason):
    images, masks = folders("a.jpg", "a.png")
    with pytest.raises(DataError, match=reason):
        pair_files(**{"images": images, "masks": masks, **options})


def test_hidden_folders_are_passed_over(folders):
    found = pair_files(*folders("a.jpg .ipynb_checkpoints/a-checkpoint.png", "a.png"))
    assert (names(found), found.problems()) == ([("a.jpg", "a.png")], {})


def test_linked_folders_are_followed_but_not_in_circles(folders, tmp_path):
    images, masks = folders("a.jpg", "a.png")
    for folder in (images, masks):
        (tmp_path / f"elsewhere_{folder.name}").mkdir()
        (folder / "city").symlink_to(tmp_path / f"elsewhere_{folder.name}")
        (folder / "back").symlink_to(folder)
    (tmp_path / "elsewhere_images/b.jpg").touch()
    (tmp_path / "elsewhere_masks/b.png").touch()
    assert names(pair_files(images, masks)) == [("a.jpg", "a.png"), ("b.jpg", "b.png")]
