import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from flatten_dense.data.base import collate_lists
from flatten_dense.tasks.checkpoint import read_checkpoint
from flatten_dense.tasks.nonfinite import REPLAY_KEY, NonFiniteLossError


def fit(task, batch, folder):
    samples = [{key: values[i] for key, values in batch.items()} for i in range(2)]
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    run = Trainer(accelerator="cpu", logger=False, default_root_dir=folder, max_steps=3, **quiet)
    run.fit(task, DataLoader(samples, batch_size=2, collate_fn=collate_lists))


@pytest.fixture
def diverged(make_detector):
    task = make_detector()
    with torch.no_grad():
        task.neck.outputs[1].bias[3] = torch.nan
    return task


def test_a_loss_that_is_no_number_names_the_images_and_the_file(diverged, detection_batch, tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"images 17, 4.*nonfinite_step_0_rank_0\.ckpt"):
        fit(diverged, detection_batch, tmp_path)


def test_the_file_holds_the_batch_and_is_plain_data(diverged, detection_batch, tmp_path):
    with pytest.raises(NonFiniteLossError):
        fit(diverged, detection_batch, tmp_path)
    saved = read_checkpoint(tmp_path / "nonfinite_step_0_rank_0.ckpt")[REPLAY_KEY]
    assert saved["batch"]["image_id"] == [17, 4]
    torch.testing.assert_close(saved["batch"]["image"][1], detection_batch["image"][1])


def test_the_file_holds_the_weights_of_that_step(diverged, detection_batch, tmp_path):
    with pytest.raises(NonFiniteLossError):
        fit(diverged, detection_batch, tmp_path)
    weights = read_checkpoint(tmp_path / "nonfinite_step_0_rank_0.ckpt")["state_dict"]
    assert weights["neck.outputs.1.bias"].isnan().nonzero().tolist() == [[3]]


def test_a_finite_loss_leaves_nothing(make_detector, detection_batch, tmp_path):
    fit(make_detector(), detection_batch, tmp_path)
    assert list(tmp_path.iterdir()) == []
