import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from flatten_dense.data.images import (
    DataError,
    list_images,
    mask_image,
    read_colours,
    read_header,
    read_image,
    read_mask,
)
from flatten_dense.structures import LabelSpace, default_palette

# What each EXIF orientation asks for, by numpy.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: np.rot90,
}


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "tif"])
def test_lossless_formats_give_the_stored_pixels(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(as_array(image), pixels)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_formats_give_rgb(tmp_path, suffix):
    Image.new("RGB", (20, 10), (200, 100, 50)).save(tmp_path / f"a.{suffix}", quality=95)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 10, 20)
    np.testing.assert_allclose(image.float().mean((1, 2)), (200, 100, 50), atol=4)


def test_first_frame_of_a_camera_file_with_several_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.jpg").min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_header_says_the_size_that_the_upright_photo_has(tmp_path, pixels, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    _, height, width = read_image(tmp_path / f"a.{suffix}").shape
    assert read_header(tmp_path / f"a.{suffix}") == (width, height, orientation)


def test_the_header_is_read_without_the_pixels(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 8])
    assert read_header(tmp_path / "a.png") == (30, 20, 1)


@pytest.mark.parametrize("content", [b"", b"no photo"])
def test_a_header_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg: .*(empty|not a readable image)"):
        read_header(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_becomes_three_equal_channels(tmp_path, pixels, mode):
    grey = Image.fromarray(pixels).convert("L").convert(mode)
    grey.save(tmp_path / "a.png")
    image = as_array(read_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(image, np.asarray(grey.convert("L"))[:, :, None].repeat(3, axis=2))


def test_transparency_is_dropped_and_the_colour_kept(tmp_path, pixels):
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7, 1)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.png")), pixels)


@pytest.mark.parametrize("options", [{}, {"transparency": 0}, {"transparency": bytes([0, 128])}])
def test_palette_becomes_its_colours_without_a_warning(tmp_path, options):
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 200, 210, 220])
    palette.save(tmp_path / "a.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(as_array(image), [[[10, 20, 30], [200, 210, 220]]])


def test_cmyk_becomes_rgb(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.tif"))[0], [[255] * 3, [0, 255, 255], [0] * 3])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    image = as_array(read_image(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(image, np.array([[0, 0, 1, 1, 128, 255]])[:, :, None].repeat(3, axis=2))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(tmp_path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.png")), UPRIGHT[orientation](pixels))


def test_exif_rotation_is_applied_to_16_bit_grey(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 257
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.png"))[:, :, 0], np.rot90(values // 257, -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_photo(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.png")), pixels)


def write_truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp"])
def test_truncated_image_is_refused(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    write_truncated(path)
    with pytest.raises(DataError, match=rf"cut\.{suffix}: .*(damaged|not a readable)"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"this is text", "not a readable image"), (None, "no such file"), ("folder", "is a folder")],
)
def test_what_is_no_image_is_refused(tmp_path, read, content, reason):
    path = tmp_path / "a.png"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png: .*{reason}") as caught:
        read(path)
    assert caught.value.__context__ is None, "Pillow's own error adds nothing"


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", format="GIF")
    with pytest.raises(DataError, match="expected one of JPEG, PNG, TIFF, BMP, WEBP"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("values", [np.zeros((2, 2), np.int32), np.zeros((2, 2), np.float32)])
def test_32_bit_images_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="32-bit"):
        read_image(tmp_path / "a.tif")


def test_image_beyond_pillows_limit_is_refused(tmp_path, pixels, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"a\.png: .*million pixels"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_mask_values_are_read_as_stored(tmp_path, mode):
    values = np.array([[0, 1, 2], [150, 254, 255]], dtype=np.uint8)
    mask = Image.fromarray(values, mode=mode)
    if mode == "P":
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    mask.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), values)


def test_mask_of_16_bits_holds_large_values(tmp_path):
    Image.fromarray(np.array([[0, 846, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 846, 65535]]


def test_mask_of_one_bit_holds_0_and_1(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[1, 0]]


def test_grey_mask_of_four_bits_is_not_stretched(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 4, 0, 0, 0, 0))
    row = chunk(b"IDAT", zlib.compress(bytes([0, 0x01, 0x2F])))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + row + chunk(b"IEND", b""))
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2, 15]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_with_channels_is_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: .*index mask"):
        read_mask(tmp_path / "a.png")


def test_mask_in_another_format_is_refused(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(DataError, match="expected one of PNG"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_a_mask_are_read_as_one_number(tmp_path, mode):
    colours = Image.fromarray(np.array([[[1, 2, 3], [255, 128, 0]]], dtype=np.uint8))
    (colours.quantize(2) if mode == "P" else colours.convert(mode)).save(tmp_path / "a.png")
    packed = read_colours(tmp_path / "a.png")
    assert (packed.dtype, packed.tolist()) == (torch.int32, [[0x010203, 0xFF8000]])


def test_colours_of_16_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="16-bit"):
        read_colours(tmp_path / "a.png")


@pytest.mark.parametrize("values", [(3, 7), (3, 846)])
def test_a_written_mask_is_read_back(tmp_path, values):
    labels = LabelSpace(("a", "b"), default_palette(2), label_map=((values[0], 0), (values[1], 1)))
    mask = torch.tensor([[0, 1], [255, 1]])
    mask_image(mask, labels).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[values[0], values[1]], [255, values[1]]]
    assert torch.equal(labels.from_disk(read_mask(tmp_path / "a.png")), mask)


def test_a_written_mask_of_colours_shows_them_and_holds_indices(tmp_path):
    pairs = ((0x804080, 0), (0x0000C0, 1), (0, 255))
    labels = LabelSpace(("road", "path"), ((128, 64, 128), (0, 0, 192)), label_map=pairs, colour_masks=True)
    mask = torch.tensor([[0, 1, 255]])
    mask_image(mask, labels).save(tmp_path / "a.png")
    shown = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(shown, [[[128, 64, 128], [0, 0, 192], [0, 0, 0]]])
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 255]]
    assert torch.equal(labels.from_disk(read_colours(tmp_path / "a.png")), mask)


def test_list_is_sorted_flat_and_without_hidden_files(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.webp", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "d.jpg").touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG", "c.webp"]


def test_list_of_a_single_file_is_that_file(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert list_images(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "no such file or folder"), ("notes.txt", "not an image by its name"), (".", "holds no image")],
)
def test_list_without_images_is_refused(tmp_path, name, reason):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=reason):
        list_images(tmp_path / name)


class Failing(Dataset):
    message = "a.png: the mask is wrong\n  second line: with a colon"

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DataError(self.message)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_message_is_the_same_from_a_worker_process(num_workers):
    def failure() -> str:
        try:
            next(iter(DataLoader(Failing(), num_workers=num_workers)))
        except DataError as error:
            error.__traceback__ = None  # its frames hold the loader, which torch then closes with a wait of 5 s
            return str(error)
        return "nothing was raised"

    assert failure() == Failing.message
