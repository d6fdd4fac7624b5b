import copy
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from flatten_dense.backbones import TimmClassifier
from flatten_dense.callbacks import GradualUnfreezing
from flatten_dense.optim import Freezing


class Classifier(LightningModule):
    """The micro model, its stages frozen; the optimiser decays, and would move what has a gradient of zero."""

    def __init__(self, freezing: Freezing) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = TimmClassifier("flatten_pvt_test", options={"num_classes": 3})
        self.backbone.freeze(freezing.stages)
        self.freezing = freezing
        self.history: list[dict[str, Tensor]] = []

    def configure_callbacks(self) -> list[Callback]:
        return [GradualUnfreezing(self.backbone, self.freezing)]

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.backbone(batch[0]), batch[1])

    def on_train_batch_end(self, *_: Any) -> None:
        self.history.append(copy.deepcopy(self.backbone.body.state_dict()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.5)


def fit(task: Classifier, max_steps: int = 8, ckpt_path: object = None, **options: Any) -> Trainer:
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    data = DataLoader([(image, index % 3) for index, image in enumerate(images)], 2)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def first_change(task: Classifier, name: str) -> int:
    """The step that moved a parameter first."""
    start = Classifier(task.freezing).backbone.body.state_dict()
    return next(step for step, state in enumerate(task.history) if not torch.equal(state[name], start[name]))


FREEZING = Freezing(3, (0.25, 0.5))


def test_stages_start_to_learn_at_their_steps():
    task = Classifier(FREEZING)
    fit(task)
    names = [f"stages.{stage}.blocks.0.mlp.fc1.weight" for stage in (3, 2, 1)]
    assert [first_change(task, name) for name in ["head.weight", *names]] == [0, 0, 2, 4]


def test_a_stage_that_is_never_unfrozen_does_not_move():
    task = Classifier(FREEZING)
    fit(task)
    start = Classifier(FREEZING).backbone.body.stages[0].state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in task.backbone.body.stages[0].state_dict().items())


def test_steps_are_the_optimisers_not_the_batches():
    task = Classifier(FREEZING)
    fit(task, max_steps=4, accumulate_grad_batches=2)
    # Batches 0 and 1 are step 0; a quarter of four steps is step 1, whose update follows batch 3.
    assert first_change(task, "stages.2.blocks.0.mlp.fc1.weight") == 3


def test_one_process_computes_no_gradient_for_what_is_frozen():
    task = Classifier(FREEZING)
    seen = []
    task.on_after_backward = lambda: seen.append(task.backbone.body.stages[2].pos_embed.grad is None)
    fit(task, max_steps=4)
    assert seen == [True, False, False, False]


def test_frozen_stages_have_no_state_in_the_optimiser():
    task = Classifier(FREEZING)
    trainer = fit(task, max_steps=8, limit_train_batches=1.0)
    state = trainer.optimizers[0].state
    stages = task.backbone.body.stages
    assert [int(state[stages[stage].pos_embed]["step"]) for stage in (3, 2, 1)] == [8, 6, 4]
    assert stages[0].pos_embed not in state


@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 0.1}, {"accumulate_grad_batches": 2}])
def test_dropping_gradients_gives_the_weights_of_not_computing_them(monkeypatch, options):
    one, several = Classifier(FREEZING), Classifier(FREEZING)
    fit(one, **options)
    monkeypatch.setattr(GradualUnfreezing, "exchanges_gradients", lambda *_: True)
    fit(several, **options)
    assert all(
        torch.equal(tensor, several.backbone.state_dict()[name]) for name, tensor in one.backbone.state_dict().items()
    )


def test_every_parameter_that_will_learn_can_be_exchanged_from_the_start(monkeypatch):
    monkeypatch.setattr(GradualUnfreezing, "exchanges_gradients", lambda *_: True)
    task = Classifier(FREEZING)
    seen = []
    task.on_train_batch_start = lambda *_: seen.append(
        [stage.pos_embed.requires_grad for stage in task.backbone.body.stages]
    )
    fit(task, max_steps=4)
    assert seen == [[False, True, True, True]] * 4


def test_frozen_stages_rest_until_they_learn():
    task = Classifier(FREEZING)
    seen = []
    task.on_after_backward = lambda: seen.append([stage.training for stage in task.backbone.body.stages])
    fit(task, max_steps=4)
    assert seen == [
        [False, False, False, True],
        [False, False, True, True],
        [False, True, True, True],
        [False, True, True, True],
    ]


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 5])
def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(tmp_path, stopped_after):
    whole = Classifier(FREEZING)
    # One batch an epoch, so that a resume need not find its place within one.
    fit(whole, limit_train_batches=1)
    part = Classifier(FREEZING)
    stop = StopAfter(stopped_after)
    trainer = fit(part, limit_train_batches=1, callbacks=[stop])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = Classifier(FREEZING)
    fit(resumed, limit_train_batches=1, ckpt_path=tmp_path / "last.ckpt")
    assert len(resumed.history) == 8 - stopped_after
    assert all(
        torch.equal(tensor, resumed.backbone.state_dict()[name]) for name, tensor in whole.backbone.state_dict().items()
    )


class StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


def test_unfreezing_is_told(caplog):
    with caplog.at_level("INFO"):
        fit(Classifier(FREEZING))
    assert [line for line in caplog.messages if "stages learn" in line] == [
        "From step 2 of 8 on, 2 of the backbone's 4 stages learn.",
        "From step 4 of 8 on, 3 of the backbone's 4 stages learn.",
    ]


def test_a_training_without_an_end_is_refused():
    with pytest.raises(ValueError, match=r"length is not known: set max_steps"):
        fit(Classifier(FREEZING), max_steps=-1)
