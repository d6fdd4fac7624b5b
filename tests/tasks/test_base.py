from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from flatten_dense.loggers import AppendingCSVLogger
from flatten_dense.optim import CosineSchedule, Freezing, ParameterGroups, PolySchedule
from flatten_dense.tasks.base import CHECKPOINT_KEY


def loader(num_batches: int, size=(40, 56), batch_size: int = 2) -> DataLoader:
    """Squares of three classes; the channel of its class shines."""
    generator = torch.Generator().manual_seed(1)
    samples = []
    for _ in range(num_batches * batch_size):
        squares = torch.randint(0, 3, (size[0] // 8, size[1] // 8), generator=generator)
        mask = squares.repeat_interleave(8, 0).repeat_interleave(8, 1)
        samples.append({"image": torch.nn.functional.one_hot(mask, 3).permute(2, 0, 1).float(), "mask": mask})
    return DataLoader(samples, batch_size)


def trainer(**options) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{"accelerator": "cpu", "barebones": False, **quiet, **options})


def test_labels_are_required(make_task):
    with pytest.raises(ValueError, match="needs labels"):
        make_task(labels=None)


def test_without_a_neck_the_head_sees_the_backbone(make_task):
    task = make_task(neck=None).eval()
    assert list(task.feature_channels) == list(task.backbone.channels)
    assert task(torch.randn(1, 3, 32, 32)).shape == (1, 3, 8, 8)


def test_a_fit_starts_from_the_weights_it_is_given(make_task, tmp_path):
    source = make_task(seed=1).backbone.body.model
    torch.save({"model": source.state_dict()}, tmp_path / "source.pth")
    task = make_task(weights=str(tmp_path / "source.pth"), optimizer=partial(torch.optim.SGD, lr=0.0))
    assert not torch.equal(task.backbone.body.model.stages[0].pos_embed, source.stages[0].pos_embed)
    trainer(max_steps=1).fit(task, loader(1))
    state = task.backbone.body.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.state_dict().items())


def test_a_fit_that_goes_on_does_not_look_at_the_weights(make_task, tmp_path):
    first = trainer(max_steps=1)
    first.fit(make_task(), loader(2))
    first.save_checkpoint(tmp_path / "last.ckpt")
    task = make_task(weights=str(tmp_path / "gone.pth"))
    trainer(max_steps=2).fit(task, loader(2), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert task.trainer.global_step == 2


def test_weights_that_do_not_fit_stop_before_the_first_step(make_task, tmp_path):
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth.*holds no tensor of a FlattenPVT"):
        trainer(max_steps=1).fit(make_task(weights=str(tmp_path / "other.pth")), loader(1))


class Watcher(Callback):
    """What there is after each batch."""

    def __init__(self) -> None:
        self.losses, self.gradients = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.gradients.append(any(parameter.grad is not None for parameter in pl_module.parameters()))


def test_only_steps_that_are_logged_cost_a_log(make_task, monkeypatch):
    rows, calls = [], []
    logger = AppendingCSVLogger(Path("never/made"))
    monkeypatch.setattr(logger, "log_metrics", lambda metrics, step: rows.append((step, metrics["train/loss"])))
    watcher, task = Watcher(), make_task()
    log = task.log
    monkeypatch.setattr(task, "log", lambda name, *args, **options: calls.append(name) or log(name, *args, **options))
    run = trainer(max_steps=7, log_every_n_steps=3, logger=logger, callbacks=[watcher])
    run.fit(task, loader(7))
    assert [step for step, _ in rows] == [2, 5]
    assert calls == ["train/loss", "train/lr"] * 3  # the first step too, for the progress bar
    assert [loss for _, loss in rows] == [watcher.losses[step] for step in (2, 5)]


def test_gradients_are_freed_after_a_step_and_kept_until_then(make_task):
    watcher = Watcher()
    trainer(max_steps=2, accumulate_grad_batches=2, callbacks=[watcher]).fit(make_task(), loader(4))
    assert watcher.gradients == [True, False, True, False]


def test_schedule_steps_with_the_optimizer(make_task):
    task = make_task(optimizer=partial(torch.optim.SGD, lr=0.1), schedule=PolySchedule(power=1.0))
    rates = []
    task.on_train_batch_end = lambda *_: rates.append(task.optimizers().param_groups[0]["lr"])
    trainer(max_steps=4).fit(task, loader(4))
    # Four steps of a straight line to zero; the scheduler steps before the batch's hook.
    assert rates == pytest.approx([0.075, 0.05, 0.025, 0.0])


def test_groups_reach_the_optimizer(make_task):
    task = make_task(groups=ParameterGroups(("norm",)), optimizer=partial(torch.optim.AdamW, weight_decay=0.5))
    decayed, exempt = task.configure_optimizers().param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.5, 0.0)
    norms = [parameter for name, parameter in task.named_parameters() if "norm" in name]
    assert {id(parameter) for parameter in exempt["params"]} == {id(parameter) for parameter in norms}


def test_every_parameter_gets_a_gradient(make_task):
    task = make_task()
    torch.nn.functional.cross_entropy(task(torch.randn(2, 3, 64, 64)), torch.zeros(2, 16, 16, dtype=int)).backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_step_lowers_the_loss(make_task, precision):
    task = make_task(optimizer=partial(torch.optim.AdamW, lr=1e-2))
    losses = []
    task.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"]))
    trainer(max_epochs=25, precision=precision).fit(task, loader(1))
    assert losses[-1] < 0.5 * losses[0]


def test_checkpoint_says_how_to_read_a_photo(make_task):
    task = make_task()
    checkpoint: dict = {}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint[CHECKPOINT_KEY]["labels"]["class_names"] == ["class 0", "class 1", "class 2"]
    assert checkpoint[CHECKPOINT_KEY]["input_format"]["normalization"]["mean"] == [0.485, 0.456, 0.406]


def test_weights_of_another_model_are_refused_by_name(make_task):
    other = make_task(neck=None)
    checkpoint = {"state_dict": other.state_dict()}
    with pytest.raises(ValueError, match=r"holds another model .* tensors differ, such as: head"):
        make_task().on_load_checkpoint(checkpoint)


def test_weights_for_other_classes_are_refused_by_name(make_task):
    checkpoint: dict = {}
    make_task(num_classes=5).on_save_checkpoint(checkpoint)
    checkpoint["state_dict"] = {}
    with pytest.raises(ValueError, match=r"trained on 5 classes \(class 0, .*the data has 3"):
        make_task().on_load_checkpoint(checkpoint)


def test_a_frozen_backbone_stays_out_of_the_optimizer(make_task):
    task = make_task(freeze=Freezing(-1))
    (group,) = task.configure_optimizers().param_groups
    assert {id(parameter) for parameter in group["params"]} == {
        id(parameter) for part in (task.neck, task.head) for parameter in part.parameters()
    }


def test_rates_fall_by_layer_below_the_head(make_task):
    task = make_task(
        groups=ParameterGroups(layer_decay=0.5, head_lr=2), optimizer=partial(torch.optim.SGD, lr=0.1), schedule=None
    )
    rates = [group["lr"] for group in task.configure_optimizers().param_groups]
    # Neck and head, then four blocks and the stem; the micro model's stages hold one block each.
    assert rates == pytest.approx([0.2, 0.05, 0.025, 0.0125, 0.00625, 0.003125])


def test_a_step_is_taken_at_the_rates_of_the_groups(make_task):
    torch.manual_seed(0)
    images = next(iter(loader(1)))
    moves = []
    for head_lr in (1.0, 3.0):
        task = make_task(groups=ParameterGroups(head_lr=head_lr), optimizer=partial(torch.optim.SGD, lr=1e-3))
        before = task.head.classifier.bias.detach().clone()
        trainer(max_steps=1).fit(task, DataLoader([{key: value[0] for key, value in images.items()}]))
        moves.append(task.head.classifier.bias.detach() - before)
    assert torch.allclose(moves[1], 3 * moves[0], rtol=1e-3)


def test_the_rate_follows_the_images_of_a_step(make_task, caplog):
    task = make_task(
        groups=ParameterGroups(reference_batch=16),
        optimizer=partial(torch.optim.SGD, lr=0.8),
        schedule=CosineSchedule(min_lr=0.08, warmup=0.5, warmup_lr=0.0),
    )
    rates = []
    task.on_train_batch_start = lambda *_: rates.append(task.optimizers().param_groups[0]["lr"])
    with caplog.at_level("INFO"):
        trainer(max_steps=2, accumulate_grad_batches=2).fit(task, loader(4))
    # Batches of 2, two of them a step: a quarter of 16.
    assert rates == pytest.approx([0.0, 0.0, 0.11, 0.11])
    assert "meant for 16 images a step; a step takes 4 (batch 2 x 1 processes x 2 accumulated)" in caplog.text


def test_weights_and_dimensions_are_taken_before_a_strategy_deals_the_parameters_out(make_task, tmp_path, monkeypatch):
    source = make_task(seed=1).backbone.body.model
    torch.save(source.state_dict(), tmp_path / "source.pth")
    task = make_task(weights=str(tmp_path / "source.pth"), groups=ParameterGroups(exempt_1d=True))
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", True)  # as FSDP
    seen = []
    monkeypatch.setattr(
        SingleDeviceStrategy,
        "model_to_device",
        lambda strategy: (
            seen.append(task.backbone.body.model.stages[0].pos_embed.clone())
            or [setattr(parameter, "data", parameter.data.flatten()) for parameter in task.neck.parameters()]
        ),
    )
    with pytest.raises(RuntimeError):  # a flattened neck cannot run
        trainer(max_steps=1).fit(task, loader(1))
    assert torch.equal(seen[0], source.stages[0].pos_embed)
    decayed = {id(parameter) for parameter in task.trainer.optimizers[0].param_groups[0]["params"]}
    assert all((id(p) in decayed) == name.endswith("weight") for name, p in task.neck.named_parameters())
