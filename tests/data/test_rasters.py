import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.enums import ColorInterp
from torchvision.transforms.v2 import functional as F

from flatten_dense.data.images import DataError, read_image
from flatten_dense.data.rasters import LargeTiff, tiff_pixels
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.structures import InputFormat, Normalization

PLAIN = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def noise(height: int = 90, width: int = 120, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(noise(12, 16)).resize((width, height), Image.Resampling.BICUBIC))


def write(path: Path, pixels: np.ndarray, colorinterp=None, **options) -> Path:
    height, width, count = pixels.shape
    profile = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=count, dtype=pixels.dtype, **profile
        ) as target:
            target.write(pixels.transpose(2, 0, 1))
            if colorinterp:
                target.colorinterp = colorinterp
    return path


def whole(path: Path) -> torch.Tensor:
    """All pixels, uint8."""
    tiff = LargeTiff(path)
    with tiff.open(InputFormat(None, PLAIN)) as image:
        return (image.read(0, 0, *tiff.size) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "I;16"])
def test_pixels_are_those_that_pillow_reads(tmp_path, mode):
    if mode == "I;16":
        picture = Image.fromarray(noise()[..., 0].astype(np.uint16) * 256 + 77)
    else:
        picture = Image.fromarray(noise(channels=4)).convert("RGB" if mode == "P" else mode)
    (picture.quantize(20) if mode == "P" else picture).save(tmp_path / "a.tif")
    assert torch.equal(whole(tmp_path / "a.tif"), read_image(tmp_path / "a.tif"))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_striped_and_compressed_files(tmp_path, compression):
    Image.fromarray(smooth(200, 120)).save(tmp_path / "a.tif", compression=compression)
    error = whole(tmp_path / "a.tif").int() - read_image(tmp_path / "a.tif").int()
    assert error.abs().max() <= (2 if compression == "jpeg" else 0)


def test_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(smooth(90, 120)).convert("CMYK").save(tmp_path / "a.tif")
    error = whole(tmp_path / "a.tif").int() - read_image(tmp_path / "a.tif").int()
    assert error.abs().max() <= 2


def test_white_is_zero_is_inverted_as_pillow_does(tmp_path):
    Image.fromarray(noise()[..., 0]).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert torch.equal(whole(tmp_path / "a.tif"), read_image(tmp_path / "a.tif"))


def test_16_bits_are_scaled_to_8(tmp_path):
    values = np.array([[[0, 128, 65535], [257, 1000, 32768]]], np.uint16)
    assert whole(write(tmp_path / "a.tif", values))[:, 0].T.tolist() == [[0, 0, 255], [1, 4, 128]]


def test_bands_marked_as_colours_are_found(tmp_path):
    pixels = noise(channels=5)
    marks = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    path = write(tmp_path / "a.tif", pixels, marks, photometric="minisblack")
    assert torch.equal(whole(path), torch.from_numpy(pixels[..., [3, 2, 1]]).permute(2, 0, 1))


def test_a_window_is_that_part_of_the_image(tmp_path):
    path = write(tmp_path / "a.tif", noise())
    with LargeTiff(path).open(InputFormat()) as image:
        expected = EvalTransform(InputFormat())(read_image(path))
        torch.testing.assert_close(image.read(7, 31, 40, 65), expected[:, 7:47, 31:96])


@pytest.mark.parametrize("size", [(70, 111), (500, 801), (35, 56)])
def test_windows_of_a_resized_file_are_those_of_the_resized_photo(tmp_path, size):
    path = write(tmp_path / "a.tif", smooth(350, 561))
    with LargeTiff(path).open(InputFormat(None, PLAIN)) as image:
        resized = image.resized(size)
        parts = [
            torch.cat(
                [resized.read(top, left, bottom - top, right - left) for left, right in ((0, 40), (40, size[1]))], 2
            )
            for top, bottom in ((0, 32), (32, size[0]))
        ]
    expected = F.resize(read_image(path), list(size), antialias=True) / 255
    assert (torch.cat(parts, 1) - expected).abs().max() * 255 < 2.5


def test_the_input_format_says_how_large_the_model_wants_it(tmp_path):
    with LargeTiff(write(tmp_path / "a.tif", noise())).open(InputFormat((60, 60))) as image:
        assert image.size == (45, 60)
        assert image.read(0, 0, 45, 60).shape == (3, 45, 60)


def test_preview_is_bounded_and_averages(tmp_path):
    path = write(tmp_path / "a.tif", smooth(300, 600))
    preview = LargeTiff(path).preview(100)
    expected = torch.from_numpy(smooth(300, 600)).float().reshape(50, 6, 100, 6, 3).mean((1, 3)).permute(2, 0, 1)
    assert (preview - expected).abs().max() <= 1
    assert LargeTiff(path).preview(1000).shape == (3, 300, 600)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (noise().astype(np.float32), {}, "holds float32 values; expected 8 or 16 bits"),
        (noise()[..., :1] % 2, {"nbits": 1}, "holds 1-bit values"),
        (noise(channels=6), {"photometric": "minisblack"}, "has 6 bands.*rio stack"),
    ],
)
def test_what_cannot_be_a_photo_is_refused(tmp_path, pixels, options, message):
    with pytest.raises(DataError, match=rf"a\.tif: .*{message}"):
        LargeTiff(write(tmp_path / "a.tif", pixels, **options))


def test_a_file_in_one_piece_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("flatten_dense.data.rasters._LARGEST_BLOCK", 10_000)
    path = write(tmp_path / "a.tif", noise(), tiled=False, blockysize=90)
    with pytest.raises(DataError, match=r"pieces of 120 x 90 pixels.*rio convert IN OUT\.tif"):
        LargeTiff(path)


def test_a_rotation_tag_is_not_passed_over(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.tif", tiffinfo={274: 6})
    with pytest.raises(DataError, match="Orientation"):
        LargeTiff(tmp_path / "a.tif")


def test_a_damaged_file_is_named_when_its_damage_is_read(tmp_path):
    path = write(tmp_path / "a.tif", noise(300, 300))
    path.write_bytes(path.read_bytes()[:150_000])
    tiff = LargeTiff(path)
    with tiff.open(InputFormat()) as image:
        image.read(0, 0, 32, 32)
        with pytest.raises(DataError, match=r"a\.tif: the image is damaged"):
            image.read(250, 250, 50, 50)


def test_pixels_by_the_header(tmp_path):
    (tmp_path / "not.tif").write_bytes(b"not a picture")
    assert tiff_pixels(write(tmp_path / "a.tif", noise(), bigtiff="yes")) == 90 * 120
    assert tiff_pixels(tmp_path / "not.tif") == 0
    assert LargeTiff(tmp_path / "a.tif").size == (90, 120)


def test_cmyk_of_16_bits_is_refused(tmp_path):
    profile = {"driver": "GTiff", "height": 8, "width": 8, "count": 4, "dtype": "uint16", "photometric": "cmyk"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as target:
        target.write(np.zeros((4, 8, 8), np.uint16))
    with pytest.raises(DataError, match="CMYK colours of 16 bits"):
        LargeTiff(tmp_path / "a.tif")
