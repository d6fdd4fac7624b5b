import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from flatten_dense.cli import main
from flatten_dense.data.images import read_image
from flatten_dense.inference import Inference
from flatten_dense.tasks.checkpoint import load_task

TILES = ["--model.inference.max_pixels", "5000", "--model.inference.tile_size", "96", "--model.inference.overlap", "0"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a_large", (200, 300)), ("b_cut", (200, 300)), ("c_small", (50, 60))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.tif")
    whole = (folder / "b_cut.tif").read_bytes()
    (folder / "b_cut.tif").write_bytes(whole[: len(whole) // 2])
    return folder


def test_predict_streams_what_is_large_and_goes_on_after_what_is_damaged(fitted, photos, tmp_path, capsys):
    # Without resizing, so that the file itself is what goes through the tiles.
    options = ["--input", str(photos), "--output", str(tmp_path / "out"), "--data.input_format.scale", "null", *TILES]
    assert main(["predict", "--ckpt_path", str(fitted.best), *options]) == 2
    assert "b_cut.tif: the image is damaged" in capsys.readouterr().err
    masks = tmp_path / "out/masks"
    assert sorted(path.name for path in masks.iterdir()) == ["a_large.tif", "c_small.png"]
    task = load_task(fitted.best)
    task.input_format = type(task.input_format)(None, task.input_format.normalization)
    task.inference = Inference(max_pixels=5000, tile_size=96, overlap=0)
    with rasterio.open(masks / "a_large.tif") as mask:
        assert np.array_equal(mask.read(1), task.segment(read_image(photos / "a_large.tif")).numpy())
    assert np.array_equal(Image.open(masks / "c_small.png"), task.segment(read_image(photos / "c_small.tif")).numpy())


def test_a_large_file_is_read_at_the_size_that_the_model_wants(fitted, photos, tmp_path):
    (photos / "b_cut.tif").unlink()
    options = ["--input", str(photos / "a_large.tif"), "--output", str(tmp_path / "out"), *TILES]
    assert main(["predict", "--ckpt_path", str(fitted.best), *options]) == 0
    with rasterio.open(tmp_path / "out/masks/a_large.tif") as mask:
        same = mask.read(1) == load_task(fitted.best).segment(read_image(photos / "a_large.tif")).numpy()
    assert same.mean() > 0.99  # rasterio and torchvision round differently when they reduce a photo


def test_metrics_json_says_how_images_were_given_to_the_model(fitted, tmp_path):
    written = json.loads((fitted.run / "metrics.json").read_text())["inference"]
    assert written["mode"] == "auto"
    assert written["images"] == {"whole": 4, "slide": 0, "tiled": 0}
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(fitted.data), "--runs", str(tmp_path)]
    slide = ["--model.inference.mode", "slide", "--model.inference.window", "40", "--model.inference.stride", "30"]
    assert main(["validate", *options, *slide, "--model.inference.flip", "true"]) == 0
    (metrics,) = tmp_path.rglob("metrics.json")
    written = json.loads(metrics.read_text())["inference"]
    assert (written["mode"], written["window"], written["flip"]) == ("slide", 40, True)
    assert written["images"] == {"whole": 0, "slide": 4, "tiled": 0}


def test_options_of_inference_are_checked(fitted, tmp_path, capsys):
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(fitted.data), "--runs", str(tmp_path)]
    assert main(["validate", *options, "--model.inference.tile_size", "100"]) == 2
    said = capsys.readouterr().err
    assert said.strip() == "flatten-dense validate: inference.tile_size must be a positive multiple of 32, got 100"
