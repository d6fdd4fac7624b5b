import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from flatten_dense.data.mask_tiff import MaskTiff, read_mask_preview
from flatten_dense.data.rasters import LargeTiff
from flatten_dense.structures import LabelSpace, default_palette

LABELS = LabelSpace(("a", "b", "c"), default_palette(3), reduce_zero_label=True)
PLACE = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}


@pytest.fixture
def photo(tmp_path):
    def make(height=1100, width=700, **options) -> LargeTiff:
        pixels = np.random.default_rng(0).integers(1, 256, (3, height, width), dtype=np.uint8)
        pixels[:, 500:600, 100:200] = 0
        profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8"}
        with rasterio.open(tmp_path / "photo.tif", "w", **profile, **PLACE, **options) as target:
            target.write(pixels)
        return LargeTiff(tmp_path / "photo.tif")

    return make


def classes(height: int = 1100, width: int = 700) -> torch.Tensor:
    return torch.randint(0, 3, (height, width), generator=torch.Generator().manual_seed(0))


def write(path, photo, strips, labels=LABELS):
    with MaskTiff(path, photo, labels) as target:
        for strip in strips:
            target.write(strip)


@pytest.mark.parametrize("heights", [(1100,), (1, 510, 1, 500, 88), (7,) * 157 + (1,)])
def test_strips_become_the_mask_in_the_values_of_the_data_set(tmp_path, photo, heights):
    write(tmp_path / "mask.tif", photo(), classes().split(heights))
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert np.array_equal(mask.read(1), classes().numpy() + 1)


def test_the_mask_is_tiled_compressed_and_lies_where_the_photo_does(tmp_path, photo):
    write(tmp_path / "mask.tif", photo(), [classes()])
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.profile["tiled"]
        assert mask.compression.value == "DEFLATE"
        assert mask.crs == rasterio.crs.CRS.from_string(PLACE["crs"])
        assert mask.transform == PLACE["transform"]
        assert mask.nodata is None


def test_where_the_photo_has_no_data_the_mask_is_not_labelled(tmp_path, photo):
    write(tmp_path / "mask.tif", photo(nodata=0), [classes()])
    expected = classes().numpy() + 1
    expected[500:600, 100:200] = 0
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert np.array_equal(mask.read(1), expected)
        assert mask.nodata == 0


def test_an_unfinished_mask_leaves_nothing(tmp_path, photo):
    def strips():
        yield classes()[:600]
        assert not (tmp_path / "mask.tif").exists()
        raise RuntimeError("fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        write(tmp_path / "mask.tif", photo(), strips())
    assert [path.name for path in tmp_path.iterdir()] == ["photo.tif"]


def test_a_mask_that_cannot_be_begun_leaves_the_photo_closed(tmp_path, photo):
    mask = MaskTiff(tmp_path / "missing/mask.tif", photo(), LABELS)
    with pytest.raises(rasterio.errors.RasterioIOError), mask:
        pass
    assert mask._source.closed


def test_preview_takes_the_nearest_pixels(tmp_path, photo):
    write(tmp_path / "mask.tif", photo(), [torch.zeros(1100, 700, dtype=torch.int64)])
    preview = read_mask_preview(tmp_path / "mask.tif", (110, 70), LABELS)
    assert preview.shape == (110, 70)
    assert preview.unique().tolist() == [0]


def test_values_above_255_are_written_as_they_are(tmp_path, photo):
    labels = LabelSpace(("a", "b"), default_palette(2), label_map=((7, 0), (1000, 1), (0, 255)))
    write(tmp_path / "mask.tif", photo(nodata=0), [torch.ones(1100, 700, dtype=torch.int64)], labels)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert np.unique(mask.read(1)).tolist() == [0, 1000]


def test_colours_of_the_data_set_go_with_the_classes(tmp_path, photo):
    labels = LabelSpace(
        ("a", "b", "c"), default_palette(3), label_map=((0xFF0000, 0), (0x00FF00, 1), (0x0000FF, 2)), colour_masks=True
    )
    write(tmp_path / "mask.tif", photo(), [classes()], labels)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert np.array_equal(mask.read(1), classes().numpy())
        assert [mask.colormap(1)[index][:3] for index in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert torch.equal(read_mask_preview(tmp_path / "mask.tif", (1100, 700), labels), classes())
