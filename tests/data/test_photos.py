import numpy as np
import pytest
from PIL import Image

from flatten_dense.data.images import DataError
from flatten_dense.data.photos import PhotoDataModule, PhotoDataset
from flatten_dense.structures import InputFormat


def write(path, size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)
    return path


def batches(path, **options):
    module = PhotoDataModule(path, input_format=InputFormat(), num_workers=0, **options)
    module.setup("predict")
    return list(module.predict_dataloader())


def test_a_single_file(tmp_path):
    (batch,) = batches(write(tmp_path / "one.jpg"))
    assert batch["name"] == ["one"]
    assert batch["path"] == [str(tmp_path / "one.jpg")]
    assert batch["size"] == [(8, 12)]
    assert batch["image"][0].shape == (3, 8, 12)


def test_a_folder_in_the_order_of_names(tmp_path):
    for name in ("b.png", "a.jpg", "c.webp"):
        write(tmp_path / name)
    assert [name for batch in batches(tmp_path) for name in batch["name"]] == ["a", "b", "c"]


def test_images_are_resized_as_the_model_expects_and_remember_their_size(tmp_path):
    write(tmp_path / "a.png", (40, 20))
    module = PhotoDataModule(tmp_path, input_format=InputFormat((20, 10)), num_workers=0)
    module.setup("predict")
    (batch,) = module.predict_dataloader()
    assert batch["image"][0].shape == (3, 10, 20)
    assert batch["size"] == [(20, 40)]


def test_equal_stems_keep_their_suffix(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        write(tmp_path / name)
    assert sorted(name for batch in batches(tmp_path) for name in batch["name"]) == ["a.jpg", "a.png", "b"]


def test_no_two_photos_share_a_name(tmp_path):
    for name in ("a.jpg", "a.png", "a.jpg.png"):
        write(tmp_path / name)
    assert sorted(name for batch in batches(tmp_path) for name in batch["name"]) == ["a.jpg", "a.jpg.png", "a.png"]


def test_an_unreadable_photo_does_not_stop_the_others(tmp_path):
    write(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (batch,) = batches(tmp_path, batch_size=2)
    assert batch["name"] == ["good"]
    assert len(batch["failed"]) == 1
    assert "bad.png" in batch["failed"][0]


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        PhotoDataModule(tmp_path / "nowhere").setup("predict")


def test_a_tiff_above_the_limit_comes_as_a_handle(tmp_path):
    write(tmp_path / "large.tif", (40, 30))
    write(tmp_path / "large.png", (40, 30))
    write(tmp_path / "small.tif", (20, 30))
    module = PhotoDataModule(tmp_path, batch_size=3, num_workers=0)
    module.max_pixels = 600
    module.setup("predict")
    (batch,) = module.predict_dataloader()
    assert batch["name"] == ["large.png", "small"]
    assert batch["large_name"] == ["large.tif"]
    assert batch["large"][0].size == (30, 40)


def test_a_handle_survives_a_worker_process(tmp_path):
    write(tmp_path / "large.tif", (40, 30))
    module = PhotoDataModule(tmp_path, num_workers=1)
    module.max_pixels = 1
    module.setup("predict")
    (batch,) = module.predict_dataloader()
    with batch["large"][0].open(InputFormat()) as image:
        assert image.read(0, 0, 30, 40).shape == (3, 30, 40)


def test_a_large_tiff_that_cannot_be_read_in_windows_does_not_stop_the_others(tmp_path):
    Image.fromarray(np.zeros((30, 40), np.float32)).save(tmp_path / "heights.tif")
    module = PhotoDataModule(tmp_path, num_workers=0)
    module.max_pixels = 1
    module.setup("predict")
    (batch,) = module.predict_dataloader()
    assert "float32" in batch["failed"][0]


def test_a_large_tiff_that_cannot_be_read_in_windows_is_read_as_a_whole(tmp_path):
    photo = Image.new("RGB", (30, 20))
    photo.save(tmp_path / "turned.tif", tiffinfo={274: 6})
    Image.new("1", (30, 20)).save(tmp_path / "scan.tif")
    items = PhotoDataset([tmp_path / "turned.tif", tmp_path / "scan.tif"], InputFormat(), max_pixels=10)
    assert [items[index]["size"] for index in range(2)] == [(30, 20), (20, 30)]
