import importlib.util
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from flatten_dense.data.base import collate_lists
from flatten_dense.tasks.checkpoint import read_checkpoint
from flatten_dense.tasks.nonfinite import REPLAY_KEY, NonFiniteLossError

TOOL = Path(__file__).parents[2] / "tools/replay_batch.py"
SPEC = importlib.util.spec_from_file_location("replay_batch", TOOL)
replay_batch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(replay_batch)


@pytest.fixture
def task(make_detector, detector_recipe):
    task = make_detector()
    task.recipe = detector_recipe
    return task


@pytest.fixture
def fit(task, detection_batch, tmp_path):
    """Trains the task until its masks' loss is no number, and gives the file that is left."""

    def run(precision: str = "32-true") -> Path:
        torch.nn.init.constant_(task.head.mask_head.masks.bias, torch.nan)
        samples = [{key: values[i] for key, values in detection_batch.items()} for i in range(2)]
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            accelerator="cpu", logger=False, default_root_dir=tmp_path, max_steps=2, precision=precision, **quiet
        )
        with pytest.raises(NonFiniteLossError):
            trainer.fit(task, DataLoader(samples, batch_size=2, collate_fn=collate_lists))
        (path,) = tmp_path.glob("*.ckpt")
        return path

    return run


@pytest.fixture
def file_of_mixed_precision(task, detection_batch, tmp_path):
    """As a run in float16 leaves it, which needs a GPU."""
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    losses = dict.fromkeys(task.losses(detection_batch["image"], detection_batch["target"]), float("nan"))
    replay = {"batch": detection_batch, "random_state": torch.get_rng_state(), "step": 12, "precision": "16-mixed"}
    torch.save({**checkpoint, REPLAY_KEY: {**replay, "losses": losses}}, tmp_path / "nonfinite.ckpt")
    return tmp_path / "nonfinite.ckpt"


def test_it_names_the_first_layer_that_goes_wrong(fit):
    again = replay_batch.replay(fit())["32-true"]
    assert again.first == "head.mask_head.masks (Conv2d)"
    assert not again.is_finite


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_step_is_the_same_to_the_last_random_number(fit, precision):
    path = fit(precision)
    then = read_checkpoint(path)[REPLAY_KEY]["losses"]
    assert replay_batch.replay(path)[precision].losses == pytest.approx(then, nan_ok=True, rel=1e-6)
    assert [name for name, value in then.items() if value != value] == ["loss", "loss_mask"]


def test_weights_that_were_spoilt_before_are_told(fit, capsys):
    assert replay_batch.main([str(fit())]) == 1
    assert (
        "not finite before the step already: 1 tensors of weights, head.mask_head.masks.bias" in capsys.readouterr().out
    )


def test_what_only_the_precision_of_the_run_spoils(file_of_mixed_precision, tmp_path, capsys):
    content = read_checkpoint(file_of_mixed_precision)
    content["state_dict"]["neck.outputs.1.bias"][3] = 1e5  # beyond float16
    torch.save(content, tmp_path / "large.ckpt")
    assert replay_batch.main([str(tmp_path / "large.ckpt")]) == 1
    out = capsys.readouterr().out
    assert "16-mixed: the first output that is not finite is that of neck.outputs.1 (Conv2d)" in out
    assert "32-true: every layer's output is finite, and so are the losses" in out


def test_a_step_that_is_finite_now_says_so(file_of_mixed_precision, capsys):
    assert replay_batch.main([str(file_of_mixed_precision)]) == 0
    out = capsys.readouterr().out
    assert "step 12, images 17, 4, 16-mixed" in out
    assert out.count("every layer's output is finite, and so are the losses") == 2


def test_another_checkpoint_is_refused(file_of_mixed_precision, tmp_path, capsys):
    content = read_checkpoint(file_of_mixed_precision)
    del content[REPLAY_KEY]
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(SystemExit, match="2"):
        replay_batch.main([str(tmp_path / "other.ckpt")])
    assert "holds no batch to take again" in capsys.readouterr().err


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    torch.save({"state_dict": {}, REPLAY_KEY: Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(SystemExit, match="2"):
        replay_batch.main([str(tmp_path / "evil.ckpt")])
    assert "never executed" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
