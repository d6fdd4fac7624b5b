import csv
import math
from types import SimpleNamespace

import pytest
import torch

from flatten_dense.analysis import capture_attention
from flatten_dense.analysis.matrices import attention_weights
from flatten_dense.analysis.statistics import numerical_rank, row_entropy
from flatten_dense.backbones import TimmBackbone, TimmClassifier
from flatten_dense.callbacks import AttentionStatistics
from flatten_dense.cli import main
from flatten_dense.tasks.checkpoint import read_checkpoint

TRAINER = {"state": SimpleNamespace(fn="fit"), "current_epoch": 0, "sanity_checking": False, "is_global_zero": True}
IMAGES = torch.randn(6, 3, 64, 96, generator=torch.Generator().manual_seed(0))


class Logging(torch.nn.Module):
    """What a callback sees of a task."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.logged = {}

    def log(self, name, value, rank_zero_only):
        assert rank_zero_only
        self.logged[name] = value


@pytest.fixture
def task():
    torch.manual_seed(0)
    return Logging(TimmClassifier("flatten_deit_test", options={"num_classes": 3}).double())


def validate(callback, task, images=IMAGES, **trainer):
    trainer = SimpleNamespace(**{**TRAINER, **trainer})
    for batch_idx in range(2):
        callback.on_validation_batch_start(trainer, task, {"image": images}, batch_idx)
        images = [image * 0 for image in images]
    callback.on_validation_epoch_end(trainer, task)
    return task.logged


def test_a_fit_has_the_numbers_in_its_table_and_the_same_weights_as_without(fitted, tmp_path, capsys):
    options = ["-c", str(fitted.recipe), "--data.root", str(fitted.data), "--runs", str(tmp_path), "--name", "micro"]
    assert main(["fit", *options, "--trainer.callbacks+=AttentionStatistics", "--trainer.callbacks.blocks=[0,-1]"]) == 0
    (run,) = (tmp_path / "micro").iterdir()
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["attention/rank"]]
    assert [row["step"] for row in rows] == ["1", "3"]
    blocks = "stages.0.blocks.0", "stages.3.blocks.0"
    for kind in ("entropy", "rank"):
        values = [float(rows[0][f"attention/{kind}/{block}"]) for block in blocks]
        assert float(rows[0][f"attention/{kind}"]) == pytest.approx(sum(values) / 2, rel=1e-6)
    assert sum(name.startswith("attention/") for name in rows[0]) == 6
    expected, got = (read_checkpoint(path)["state_dict"] for path in (fitted.best, run / "checkpoints" / "best.ckpt"))
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_numbers_are_means_over_rows_heads_and_the_first_images(task):
    logged = validate(AttentionStatistics(num_images=2), task)
    for call in capture_attention(task, IMAGES[:2]):
        weights = attention_weights(call.core, *call[2:7])
        assert logged[f"attention/entropy/{call.name}"] == pytest.approx(row_entropy(weights).mean().item())
        assert logged[f"attention/rank/{call.name}"] == numerical_rank(weights)[0].double().mean()
    assert len(logged) == 10


def test_blocks_with_windows_are_measured():
    task = Logging(TimmBackbone("flatten_swin_test", options={"attention": "SSSS", "window_size": 3}))
    assert validate(AttentionStatistics(), task)["attention/rank/stages.0.blocks.1"] > 0


def test_images_of_several_sizes_are_measured(make_detector, detection_batch):
    task = Logging(make_detector().backbone)
    logged = validate(AttentionStatistics(blocks=[-1]), task, detection_batch["image"])
    captured = [capture_attention(task, image[None], [-1])[0] for image in detection_batch["image"]]
    ranks = [numerical_rank(attention_weights(call.core, *call[2:7]))[0].double().mean() for call in captured]
    assert captured[0].q_size != captured[1].q_size
    assert logged["attention/rank"] == sum(ranks) / 2


def test_modes_and_random_numbers_stay(task):
    task.eval()
    task.backbone.body.stages[0].train()
    modes, random = [module.training for module in task.modules()], torch.get_rng_state()
    validate(AttentionStatistics(), task)
    assert [module.training for module in task.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("trainer", "measures"),
    [
        ({"current_epoch": 0}, False),
        ({"current_epoch": 2}, True),
        ({"current_epoch": 0, "state": SimpleNamespace(fn="validate")}, True),
        ({"current_epoch": 2, "sanity_checking": True}, False),
        ({"current_epoch": 2, "is_global_zero": False}, False),
    ],
)
def test_it_measures_when_due(task, trainer, measures):
    assert bool(validate(AttentionStatistics(every_n_epochs=3), task, **trainer)) == measures


def test_blocks_of_too_many_tokens_are_left_out_with_one_warning(task, monkeypatch, recwarn):
    monkeypatch.setattr("flatten_dense.callbacks.attention_statistics.MAX_TOKENS", 10)
    task = Logging(TimmBackbone("flatten_pvt_test"))
    callback = AttentionStatistics()
    for _ in range(2):
        logged = validate(callback, task)
    assert set(logged) == {
        f"attention/{kind}{block}" for kind in ("entropy", "rank") for block in ("", "/stages.3.blocks.0")
    }
    (warning,) = [str(warning.message) for warning in recwarn if "AttentionStatistics" in str(warning.message)]
    assert warning.endswith("more than 10 tokens: stages.0.blocks.0, stages.1.blocks.0, stages.2.blocks.0")


def test_weights_that_diverged_give_nan_and_no_error(task):
    torch.nn.init.constant_(task.backbone.body.stages[2].blocks[0].attn.q.bias, torch.inf)
    logged = validate(AttentionStatistics(), task)
    assert math.isnan(logged["attention/rank/stages.2.blocks.0"])
    assert logged["attention/rank/stages.0.blocks.0"] == 8


@pytest.mark.parametrize("options", [{"every_n_epochs": 0}, {"num_images": -1}])
def test_numbers_below_one_are_refused(options):
    with pytest.raises(ValueError, match=r"(every_n_epochs|num_images) must be at least 1, got"):
        AttentionStatistics(**options)


def setup(callback, task, deals_out=False):
    trainer = SimpleNamespace(strategy=SimpleNamespace(restore_checkpoint_after_setup=deals_out))
    callback.setup(trainer, task, "fit")


def test_a_model_without_attention_is_refused_before_training():
    with pytest.raises(ValueError, match="no block with an attention core"):
        setup(AttentionStatistics(), Logging(TimmBackbone("resnet18")))


def test_a_block_that_is_not_there_is_refused_before_training(task):
    with pytest.raises(ValueError, match="no block 9: the model has 4"):
        setup(AttentionStatistics(blocks=[9]), task)


def test_weights_that_are_dealt_out_are_refused(task):
    with pytest.raises(ValueError, match=r"AttentionStatistics .* use --trainer\.strategy ddp"):
        setup(AttentionStatistics(), task, deals_out=True)
