import math
from types import SimpleNamespace

import numpy as np
import rasterio
import torch
from PIL import Image
from torch import nn

from flatten_dense.callbacks import PredictionWriter
from flatten_dense.data.images import DataError
from flatten_dense.data.rasters import LargeTiff
from flatten_dense.structures import LabelSpace, default_palette

LABELS = LabelSpace(("a", "b", "c"), default_palette(3), reduce_zero_label=True)


def trainer(**facts) -> SimpleNamespace:
    defaults = {"is_global_zero": True, "sanity_checking": False, "global_step": 7, "loggers": []}
    return SimpleNamespace(state=SimpleNamespace(fn="fit"), **{**defaults, **facts})


def test_written_masks_hold_the_values_of_the_data_set(tmp_path):
    writer = PredictionWriter(tmp_path / "out", LABELS)
    white = torch.full((3, 1, 3), 255, dtype=torch.uint8)
    batch = {"photo": [white], "name": ["photo"], "large": [], "large_name": [], "failed": []}
    writer.on_predict_batch_end(trainer(), nn.Linear(1, 1), [torch.tensor([[0, 1, 2]])], batch, 0)
    assert list(Image.open(tmp_path / "out/masks/photo.png").tobytes()) == [1, 2, 3]
    drawn = Image.open(tmp_path / "out/overlays/photo.png")
    assert (drawn.size, drawn.mode) == ((3, 1), "RGB")
    assert not any(math.isclose(sum(drawn.getpixel((x, 0))), 3 * 255) for x in range(3))


def large_tiff(folder, height=600, width=900):
    scene = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(scene).save(folder / "photo.tif")
    return LargeTiff(folder / "photo.tif")


def test_the_mask_of_a_large_tiff_is_written_as_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("flatten_dense.callbacks.predictions.PREVIEW_SIDE", 300)
    classes = torch.arange(3).repeat_interleave(200)[:, None].expand(600, 900)
    batch = {"photo": [], "name": [], "large": [large_tiff(tmp_path)], "large_name": ["photo"], "failed": []}
    writer = PredictionWriter(tmp_path / "out", LABELS)
    writer.on_predict_batch_end(trainer(), nn.Linear(1, 1), [iter(classes.split(7))], batch, 0)
    with rasterio.open(tmp_path / "out/masks/photo.tif") as mask:
        assert np.array_equal(mask.read(1), classes.numpy() + 1)
    drawn = np.array(Image.open(tmp_path / "out/overlays/photo.png")).astype(int)
    assert drawn.shape == (200, 300, 3)
    greenest = drawn.mean((1, 2), where=np.array([False, True, False]))
    expected = np.array(LABELS.palette)[:, 1].repeat([67, 66, 67])
    assert np.corrcoef(greenest, expected)[0, 1] > 0.99
    assert (writer.num_written, writer.failed) == (1, [])


def test_a_large_tiff_that_is_damaged_leaves_no_mask_and_the_next_is_written(tmp_path):
    def strips(damaged):
        yield torch.zeros(300, 900, dtype=torch.int64)
        if damaged:
            raise DataError("photo.tif: the image is damaged")
        yield torch.zeros(300, 900, dtype=torch.int64)

    photo = large_tiff(tmp_path)
    batch = {"photo": [], "name": [], "large": [photo, photo], "large_name": ["bad", "good"], "failed": []}
    writer = PredictionWriter(tmp_path / "out", LABELS)
    writer.on_predict_batch_end(trainer(), nn.Linear(1, 1), [strips(True), strips(False)], batch, 0)
    assert writer.failed == ["photo.tif: the image is damaged"]
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["good.tif"]
    assert writer.num_written == 1


def test_a_large_tiff_of_a_size_that_the_model_refuses_is_reported_by_name(tmp_path):
    def refused():
        raise ValueError("the image is too small")
        yield

    photo = large_tiff(tmp_path)
    batch = {"photo": [], "name": [], "large": [photo], "large_name": ["small"], "failed": []}
    writer = PredictionWriter(tmp_path / "out", LABELS)
    writer.on_predict_batch_end(trainer(), nn.Linear(1, 1), [refused()], batch, 0)
    assert writer.failed == [f"{photo.path}: the image is too small"]
    assert writer.num_written == 0


def test_a_long_image_is_reported_on(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("flatten_dense.callbacks.predictions._SECONDS_BETWEEN_REPORTS", 0.0)
    monkeypatch.setattr("flatten_dense.callbacks.predictions.rank_zero_info", said.append)
    batch = {"photo": [], "name": [], "large": [large_tiff(tmp_path)], "large_name": ["photo"], "failed": []}
    strips = iter(torch.zeros(600, 900, dtype=torch.int64).split(300))
    PredictionWriter(tmp_path / "out", LABELS).on_predict_batch_end(trainer(), nn.Linear(1, 1), [strips], batch, 0)
    assert said[0].startswith("photo.tif: 300 of 600 rows of 900 pixels, about 0 min left")


def test_masks_of_a_colour_data_set_come_in_its_colours(tmp_path):
    colours = ((0xFF0000, 0), (0x00FF00, 1), (0x0000FF, 2))
    labels = LabelSpace(("a", "b", "c"), default_palette(3), label_map=colours, colour_masks=True)
    batch = {"photo": [torch.zeros(3, 1, 3, dtype=torch.uint8)], "name": ["photo"], "failed": []}
    batch |= {"large": [], "large_name": []}
    writer = PredictionWriter(tmp_path, labels)
    writer.on_predict_batch_end(trainer(), nn.Linear(1, 1), [torch.tensor([[0, 1, 2]])], batch, 0)
    written = Image.open(tmp_path / "masks/photo.png").convert("RGB")
    assert [written.getpixel((x, 0)) for x in range(3)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
