import importlib.util
import io
import json
import math
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from flatten_dense.analysis import analyze_attention
from flatten_dense.backbones import TimmClassifier
from flatten_dense.structures import InputFormat

_SPEC = importlib.util.spec_from_file_location(
    "analyze_attention", Path(__file__).parents[2] / "tools/analyze_attention.py"
)
tool = importlib.util.module_from_spec(_SPEC)
sys.modules["analyze_attention"] = tool  # NamedTuples look their module up
_SPEC.loader.exec_module(tool)

MODEL = "flatten_deit_test"  # 4 blocks of 3 heads, 4 x 4 tokens


class Run(NamedTuple):
    """A folder, its analysis.json and what was printed."""

    folder: Path
    numbers: dict
    printed: str

    @classmethod
    def of(cls, folder: Path, *args: str) -> "Run":
        with redirect_stdout(io.StringIO()) as printed:
            assert tool.main([*args, "--out", str(folder)]) == 0
        return cls(folder, json.loads((folder / "analysis.json").read_text()), printed.getvalue())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    chosen = ("--blocks", "1", "--heads", "0", "2", "--cores", "relu", "own", "relu", "--query", "3,60.5")
    return Run.of(tmp_path_factory.mktemp("whole"), MODEL, *chosen)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run without figures."""
    monkeypatch.setattr(tool, "draw", lambda *_: None)
    return lambda *args: Run.of(tmp_path / "out", *args)


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture):
    """The message of a run that writes nothing."""

    def run(*args: str) -> str:
        assert tool.main([*args, "--out", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr()
        assert not (tmp_path / "out").exists()
        assert printed.err.count("\n") == 1
        return printed.err

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_numbers_table_and_figures_are_written(whole):
    sheets = {f"stages.1.blocks.0.head{head}.png" for head in (0, 2)}
    assert {path.name for path in whole.folder.iterdir()} == {"analysis.json", "analysis.md", "depth.png", *sheets}
    assert (whole.folder / "analysis.md").read_text() in whole.printed
    assert str(whole.folder) in whole.printed


def test_the_numbers_are_by_core_block_and_head_each_once(whole):
    heads = whole.numbers["heads"]
    wanted = [(core, "stages.1.blocks.0", head) for core in ("relu", "own") for head in (0, 2)]
    assert [(head["core"], head["block"], head["head"]) for head in heads] == wanted
    for head in heads:
        assert head["rank_attention"] <= head["head_dim"] == 8
        assert 0 < head["entropy"] <= math.log(16)
        assert 1 <= head["effective_keys"] <= 16
        assert -1 <= head["token_similarity"] <= 1
        assert (head["rank_with_dwc"] is None) == (head["core"] == "relu")


def test_the_numbers_are_the_library_s(whole):
    subject = tool.load_subject(MODEL, None, {}, seed=0)
    image = tool.load_photo(None, subject.input_format, seed=0).input[None]
    expected = analyze_attention(subject.model, image, ("relu", "own"), blocks=[1], heads=[0, 2]).to_json()
    assert whole.numbers["heads"] == json.loads(json.dumps(expected["heads"]))


def test_the_points_asked_for_are_drawn(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(tool, "draw_attention_sheet", lambda photo, points, *_: drawn.append(points))
    monkeypatch.setattr(tool, "plot_depth", lambda *_: None)
    chosen = ("--blocks", "1", "--heads", "0", "--cores", "own", "--query", "3,60.5", "--query", "1,2")
    Run.of(tmp_path, MODEL, *chosen)
    assert drawn == [[(3, 60.5), (1, 2)]]


def test_the_settings_say_how_to_repeat_it(whole):
    settings = whole.numbers["settings"]
    assert settings["command"].startswith(f"python tools/analyze_attention.py {MODEL} --blocks 1")
    assert settings["queries"] == [[3, 60.5]]
    assert settings["image_size"] == [64, 64]


def test_random_weights_are_said_to_be_random(whole):
    assert "RANDOM weights, seed 0" in whole.printed


def test_weights_are_loaded(tmp_path):
    torch.manual_seed(5)
    expected = timm.create_model(MODEL).state_dict()
    torch.save(expected, tmp_path / "weights.pth")
    subject = tool.load_subject(MODEL, str(tmp_path / "weights.pth"), {}, seed=0)
    assert subject.weights == f"weights {tmp_path / 'weights.pth'}"
    loaded = subject.model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in expected.items())


def test_random_weights_follow_the_seed():
    first, same, other = (
        tool.load_subject(MODEL, None, {}, seed).model.stages[0].blocks[0].attn.q.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_checkpoint_brings_model_and_input_format(fitted, measure):
    photo = fitted.data / "images/test/photo_0.jpg"  # 12 x 16, and the bounds are 64 and 48
    settings = measure(str(fitted.best), "--blocks", "-1", "--image", str(photo)).numbers["settings"]
    assert settings["image_size"] == [48, 64]
    assert settings["blocks"] == ["stages.3.blocks.0"]
    assert settings["weights"] == "weights of the checkpoint"


def test_a_checkpoint_takes_no_options_of_models(fitted, refusal):
    assert "leave out --weights and --option" in refusal(str(fitted.best), "--option", "attention=LLSS")


def test_options_reach_the_model():
    options = dict(map(tool.parse_option, ("attention=S", "img_size=[96, 64]", "embed_dim=12")))
    assert options == {"attention": "S", "img_size": [96, 64], "embed_dim": 12}
    subject = tool.load_subject(MODEL, None, options, seed=0)
    assert subject.input_format.scale == (96, 64)
    assert subject.model.num_features == 12


def test_a_photo_is_resized_to_what_is_asked_for(measure, photo):
    settings = measure(MODEL, "--blocks", "0", "--image", str(photo), "--image-size", "32x48").numbers["settings"]
    assert settings["image_size"] == [32, 48]
    assert settings["image"] == str(photo)


def test_without_a_photo_a_scene_is_drawn():
    scene = InputFormat(scale=(40, 70), resize="squash")
    first, same, other = (tool.load_photo(None, scene, seed) for seed in (0, 0, 1))
    assert first.pixels.shape == (3, 40, 70)
    assert "a drawn scene" in str(first)
    assert torch.equal(first.pixels, same.pixels)
    assert not torch.equal(first.pixels, other.pixels)


def test_queries_are_pixels_of_the_resized_image():
    assert tool.find_points(["3,60.5", "0,0"], (64, 64)) == [(3, 60.5), (0, 0)]
    assert tool.find_points([], (64, 32)) == [(32, 16), (16, 8), (48, 24)]


@pytest.mark.parametrize(
    ("attention", "cores"),
    [
        ("L", ["own", "focused_p1", "softmax", "relu"]),
        ("S", ["own", "relu", "focused"]),
        ("M2", ["own", "focused_p1", "softmax", "relu", "focused"]),
        ("hydra", ["own", "softmax", "relu", "focused"]),
        ("focused_no_dwc", ["own", "focused_no_dwc_p1", "softmax", "relu", "focused"]),
        ("focused_p8", ["own", "focused_p1", "softmax", "relu", "focused"]),
        ("focused_p1", ["own", "softmax", "relu", "focused"]),
    ],
)
def test_what_the_model_has_anyway_is_not_compared_with_it(attention, cores):
    assert tool.default_cores(TimmClassifier(MODEL, options={"attention": attention})) == cores


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["resnet18"], "ResNet has no block with an attention core"),
        (["flatten_deit_tny"], "did you mean"),
        (["gone.ckpt"], "there is no such checkpoint"),
        ([MODEL, "--option", "attention=Q"], "attention must be one letter"),
        ([MODEL, "--weights", "gone.pth"], "gone.pth"),
        ([MODEL, "--image", "gone.jpg"], "gone.jpg: no such file; check the path"),
        ([MODEL, "--image", __file__], "not a readable image"),
        ([MODEL, "--image-size", "large"], "--image-size takes a side in pixels"),
        ([MODEL, "--query", "10"], "--query takes Y,X in pixels of the resized image, like 100,60; got '10'"),
        ([MODEL, "--query", "64,0"], "--query 64,0 lies outside the image, which is resized to 64 x 64"),
        ([MODEL, "--query", "nan,0"], "outside the image"),
        ([MODEL, "--query", "-1,3"], "--query -1,3 lies outside the image"),
        ([MODEL, "--cores", "relu", "sofmax"], "no attention is called 'sofmax'"),
        ([MODEL, "--cores", "own", "enhanced", "relu"], "the same attention as relu"),
        ([MODEL, "--blocks", "4"], "there is no block 4: the model has 4"),
        ([MODEL, "--heads", "3"], "no head 3: there are 3"),
        ([MODEL, "--channels", "8"], "no channel 8: there are 8"),
        ([MODEL, "--max-tokens", "15"], "--image-size"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(args, message, refusal):
    assert message in refusal(*args)


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert tool.main([MODEL, "--out", str(tmp_path)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("attention", "takes KEY=VALUE"),
        ("attention=[a", "takes a value as in YAML, like attention=LLSS; got 'attention=[a'"),
        ("attention=2026-99-99", "takes a value as in YAML"),
    ],
)
def test_an_option_without_a_value_is_refused(option, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        tool.main([MODEL, "--out", "out", "--option", option])
    assert f"--option: {message}" in capsys.readouterr().err
