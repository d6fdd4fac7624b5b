import numpy as np
import pytest
from PIL import Image

from flatten_dense.data.inspection import PhotoFacts, PhotoInspection, inspect_photo, read_all


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def test_equal_pixels_in_different_files_have_one_digest(tmp_path, pixels):
    for name in ("a.png", "b.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
    first, second = inspect_photo(tmp_path / "a.png"), inspect_photo(tmp_path / "b.bmp")
    assert first.digest == second.digest != ""


def test_equal_bytes_of_another_size_have_another_digest(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels.reshape(16, 12, 3)).save(tmp_path / "b.png")
    assert inspect_photo(tmp_path / "a.png").digest != inspect_photo(tmp_path / "b.png").digest


def test_the_size_is_the_upright_one(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    facts = inspect_photo(tmp_path / "a.jpg")
    assert (facts.size, facts.orientation) == ((12, 16), 8)


def test_a_photo_that_cannot_be_read_is_a_fact(tmp_path):
    (tmp_path / "a.png").touch()
    reason = "the file is empty (0 bytes); replace or remove it"
    assert inspect_photo(tmp_path / "a.png") == PhotoFacts(str(tmp_path / "a.png"), reason)


def test_facts_come_in_order_from_several_processes(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(70)]
    for path in paths:
        path.touch()
    assert [facts.path for facts in read_all(PhotoInspection(paths), 2)] == [str(path) for path in paths]
