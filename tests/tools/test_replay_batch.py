import importlib.util
from pathlib import Path

import pytest
import torch

from flatten_dense.tasks.checkpoint import read_checkpoint
from flatten_dense.tasks.nonfinite import REPLAY_KEY

TOOL = Path(__file__).parents[2] / "tools/replay_batch.py"
SPEC = importlib.util.spec_from_file_location("replay_batch", TOOL)
replay_batch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(replay_batch)

RECIPE = {
    "name": "micro",
    "model": {
        "class_path": "flatten_dense.tasks.detection.DetectionTask",
        "init_args": {
            "backbone": {
                "class_path": "flatten_dense.backbones.TimmBackbone",
                "init_args": {"name": "flatten_pvt_test"},
            },
            "neck": {"class_path": "flatten_dense.necks.FPN", "init_args": {"out_channels": 16, "extra_levels": 1}},
            "head": {"class_path": "flatten_dense.heads.MaskRCNNHead", "init_args": {"fc_channels": 16}},
        },
    },
    "data": {"class_path": "flatten_dense.data.detection.CocoDataModule", "init_args": {"root": "anywhere"}},
}


@pytest.fixture
def make_file(make_detector, detection_batch, tmp_path):
    def make(spoilt: bool = True) -> Path:
        task = make_detector()
        task.recipe = RECIPE
        if spoilt:
            with torch.no_grad():
                task.neck.outputs[1].bias[3] = torch.inf
        checkpoint = {"state_dict": task.state_dict()}
        task.on_save_checkpoint(checkpoint)
        losses = {"loss": float("nan")}
        checkpoint[REPLAY_KEY] = {"batch": detection_batch, "step": 12, "precision": "16-mixed", "losses": losses}
        torch.save(checkpoint, tmp_path / "nonfinite.ckpt")
        return tmp_path / "nonfinite.ckpt"

    return make


def test_it_names_the_first_layer_that_goes_wrong(make_file):
    losses, first = replay_batch.replay(make_file())
    assert not torch.isfinite(torch.tensor(losses["loss"]))
    assert first == "neck.outputs.1 (Conv2d)"


def test_a_step_that_is_finite_in_float32_says_so(make_file, capsys):
    assert replay_batch.main([str(make_file(spoilt=False))]) == 0
    out = capsys.readouterr().out
    assert "every layer's output is finite" in out
    assert "step 12, images 17, 4, 16-mixed" in out


def test_the_exit_status_tells_that_it_went_wrong_again(make_file):
    assert replay_batch.main([str(make_file())]) == 1


def test_another_checkpoint_is_refused(make_file, tmp_path, capsys):
    content = read_checkpoint(make_file())
    del content[REPLAY_KEY]
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    with pytest.raises(SystemExit, match="2"):
        replay_batch.main([str(path)])
    assert "holds no batch to take again" in capsys.readouterr().err
