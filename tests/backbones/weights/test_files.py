import io
import os
import pickle
import sys
import zipfile
from argparse import Namespace
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch

from flatten_dense.backbones.weights.files import plain_tensors, read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}
RAN = []


class CfgNode(dict):
    """Pickles as yacs' own: items, then attributes; says so if anything calls it."""

    def __init__(self, values):
        super().__init__({key: CfgNode(value) if isinstance(value, dict) else value for key, value in values.items()})
        state = {"immutable": True, "deprecated_keys": set(), "renamed_keys": {}, "new_allowed": False}
        self.__dict__.update({f"__{name}__": value for name, value in state.items()})

    def __setstate__(self, state):
        RAN.append("__setstate__")

    def __setitem__(self, key, value):
        RAN.append("__setitem__")
        super().__setitem__(key, value)


class MakesAFile:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Evaluates:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(self.path)!r})",)


class BuildsItself:
    """Runs code when its state is set."""

    def __setstate__(self, state):
        RAN.append("__setstate__")


@pytest.fixture
def save_official(tmp_path):
    """Writes a checkpoint as the official code does; yacs is there while it is written only."""

    def save(extra=None, **options):
        config = {"DATA": {"IMG_SIZE": 384}, "MODEL": {"LA": {"ATTN_TYPE": "LLSS"}, "DEPTHS": [2, (1, 2)]}}
        module = ModuleType("yacs.config")
        module.CfgNode = CfgNode
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CfgNode, "__module__", "yacs.config")
            patch.setitem(sys.modules, "yacs", ModuleType("yacs"))
            patch.setitem(sys.modules, "yacs.config", module)
            checkpoint = {"model": STATE, "optimizer": {"state": {}}, "epoch": 299, "config": CfgNode(config)}
            RAN.clear()
            torch.save({**checkpoint, **(extra or {})}, tmp_path / "official.pth", **options)
        return tmp_path / "official.pth"

    return save


def save(path, checkpoint, **options):
    torch.save(checkpoint, path, **options)
    return path


def assert_is_state(tensors):
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_an_official_file_without_its_classes(save_official, zipped):
    path = save_official(_use_new_zipfile_serialization=zipped)
    assert b"yacs.config" in (zipfile.ZipFile(path).read("official/data.pkl") if zipped else path.read_bytes())
    assert "yacs" not in sys.modules
    assert_is_state(read_weights(path).tensors)
    assert RAN == []
    assert "yacs" not in sys.modules


def test_the_official_configuration_says_the_image_size(save_official):
    assert read_weights(save_official()).img_size == (384, 384)


def test_averaged_weights_are_taken_on_request_only(save_official):
    averaged = {name: tensor + 1 for name, tensor in STATE.items()}
    path = save_official({"state_dict_ema": averaged})
    assert_is_state(read_weights(path).tensors)
    assert torch.equal(read_weights(path, ema=True).tensors["a.bias"], averaged["a.bias"])


def test_refuses_averaged_weights_that_are_not_there(save_official):
    with pytest.raises(ValueError, match="no averaged weights, expected one of state_dict_ema"):
        read_weights(save_official(), ema=True)


def test_only_averaged_weights_must_be_asked_for(tmp_path):
    path = save(tmp_path / "ema.pth", {"state_dict_ema": STATE})
    with pytest.raises(ValueError, match=r"ema\.pth#ema, in Python by ema=True"):
        read_weights(path)
    assert_is_state(read_weights(path, ema=True).tensors)


def test_reads_command_lines_and_metrics_beside_the_weights(tmp_path):
    extra = {"args": Namespace(lr=1e-3, layers=[1, 2]), "metric": np.float64(81.5), "count": np.int64(3)}
    assert_is_state(read_weights(save(tmp_path / "deit.pth", {"model": STATE, **extra})).tensors)


@pytest.mark.parametrize("evil", [MakesAFile, Evaluates])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "pickle of today"])
def test_a_file_that_would_run_code_is_refused(tmp_path, evil, form):
    checkpoint = {"model": STATE, "config": evil(tmp_path / "trace")}
    path = tmp_path / "evil.pth"
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps({"config": checkpoint["config"]}, protocol=2 if form == "pickle" else None))
    else:
        save(path, checkpoint, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match="would run code" if form in ("zip", "legacy") else "run code|never executed"):
        read_weights(path)
    assert not (tmp_path / "trace").exists()


def test_the_refusal_names_what_would_run(tmp_path):
    path = save(tmp_path / "evil.pth", {"model": STATE, "config": BuildsItself()})
    with pytest.raises(ValueError, match=r"would run code to be opened \([\w.]+\.BuildsItself\)"):
        read_weights(path)


def test_a_pickled_model_is_refused(tmp_path):
    RAN.clear()
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(save(tmp_path / "model.pt", torch.nn.Linear(2, 2)))


def test_refused_classes_stay_refused_after_an_official_file(save_official, tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch keeps a set: the order of its list may change
    read_weights(save_official())
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_reads_safetensors_by_content(tmp_path, name):
    safetensors.torch.save_file(STATE, tmp_path / name)
    assert_is_state(read_weights(tmp_path / name).tensors)


@pytest.mark.parametrize("wrap", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrappers_are_taken_off(tmp_path, wrap):
    path = save(tmp_path / "plain.pth", {wrap + name: tensor for name, tensor in STATE.items()})
    assert_is_state(read_weights(path).tensors)


def test_names_of_wrappers_are_taken_off_inside():
    assert list(plain_tensors({"task.module.body._orig_mod.w": torch.ones(1)}, "x")) == ["task.body.w"]


def test_lightning_checkpoint_says_its_classes_and_image_size(tmp_path):
    backbone = {"name": "flatten_pvt_test", "options": {"img_size": [64, 96]}}
    recipe = {"model": {"init_args": {"backbone": {"init_args": backbone}}}}
    ours = {"labels": {"class_names": ["sky", "road"]}, "recipe": recipe}
    checkpoint = {"pytorch-lightning_version": "2.6.1", "state_dict": STATE, "flatten_dense": ours}
    weights = read_weights(save(tmp_path / "last.ckpt", checkpoint))
    assert_is_state(weights.tensors)
    assert (weights.class_names, weights.img_size) == (("sky", "road"), (64, 96))
    del backbone["options"]
    assert read_weights(save(tmp_path / "last.ckpt", checkpoint)).img_size == (64, 64)


def test_averaged_weights_of_lightning_are_the_usual_ones(tmp_path):
    checkpoint = {"pytorch-lightning_version": "2.6.1", "state_dict": STATE, "current_model_state": {"a": STATE}}
    path = save(tmp_path / "last.ckpt", checkpoint)
    assert_is_state(read_weights(path).tensors)
    assert_is_state(read_weights(path, ema=True).tensors)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.3, 0.95])
def test_a_truncated_file_is_refused(tmp_path, form, share):
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=form == "zip")
    whole = safetensors.torch.save(STATE) if form == "safetensors" else buffer.getvalue()
    path = tmp_path / f"cut.{form}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut\.\w+ cannot be read as"):
        read_weights(path)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 3, "weights": STATE}, "it has 'epoch', 'weights', expected model or state_dict"),
        ({"model": {"epoch": 3}}, "no tensors"),
        ({"a": torch.eye(2).to_sparse()}, "a is sparse"),
        ({}, "nothing"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path, checkpoint, message):
    with pytest.raises(ValueError, match=message):
        read_weights(save(tmp_path / "other.pth", checkpoint))


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "page.pth").write_text("<html>please log in</html>")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_weights(tmp_path / "page.pth")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_weights(tmp_path / "none.pth")
