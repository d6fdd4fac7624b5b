"""What every task shares: injected parts, the optimiser, and checkpoints that can rebuild what they hold."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_info, rank_zero_warn
from torch import Tensor, distributed
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import AdamW, Optimizer

from flatten_dense.backbones import TimmModel, load_weights
from flatten_dense.callbacks import GradualUnfreezing
from flatten_dense.callbacks.photo_writer import PhotoWriter
from flatten_dense.data.images import first_few
from flatten_dense.optim import Freezing, ParameterGroups, Schedule
from flatten_dense.structures import InputFormat, Labels
from flatten_dense.tasks.speed import Speed

CHECKPOINT_KEY = "flatten_dense"
CHECKPOINT_FORMAT = 3


class BaseTask(LightningModule):
    """A timm model and the means to train it; subclasses add the loss and the metric, those for maps neck and head.

    Args:
        backbone: the model, or the part of it that can come with weights.
        labels: what the classes are called and how they are written; the CLI takes it from the data.
        input_format: how a photo becomes an input; the CLI takes it from the data, `predict` from the checkpoint.
        optimizer: built as ``optimizer(parameter_groups)``.
        groups: which parameters decay, and which learn faster than others.
        schedule: learning rate per step; None keeps it constant.
        weights: what the backbone starts a fit from, as :func:`flatten_dense.backbones.load_weights` takes it; a fit
            that goes on from a checkpoint does not look at it.
        freeze: which stages of the backbone stay as they start, and until when.
        speed: what makes steps faster or smaller.
    """

    labels_type: type[Labels]
    """Of the data that this task learns from."""

    monitor: str
    """Name of the logged score that decides which checkpoint is best, the higher the better."""

    max_pixels: int
    """`predict` reads a TIFF of more in windows, or refuses it."""

    recipe: dict[str, Any] | None = None
    """The configuration this task was built from, plain types only; the CLI sets it, and the checkpoint carries it."""

    def __init__(
        self,
        backbone: TimmModel,
        labels: Labels | None = None,
        input_format: InputFormat | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW,
        groups: ParameterGroups = ParameterGroups(),  # noqa: B008 - frozen
        schedule: Schedule | None = None,
        weights: str | None = None,
        freeze: Freezing = Freezing(),  # noqa: B008 - frozen
        speed: Speed = Speed(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        if labels is None:
            raise ValueError(f"{type(self).__name__} needs labels; a datamodule offers its own as .labels")
        self.backbone = backbone
        self.labels = labels
        self.input_format = input_format or InputFormat()
        self._make_optimizer = optimizer
        self._groups = groups
        self._schedule = schedule
        self._weights = weights
        self._dimensions: dict[str, int] | None = None
        self._freezing = freeze
        self._speed = speed
        if freeze.stages:
            backbone.freeze(freeze.stages)
        if freeze.unfreeze_at:
            freeze.begin(backbone.num_stages)

    @abstractmethod
    def evaluation_callbacks(self, run: Path, facts: dict[str, Any]) -> list[Callback]:
        """What writes about the evaluations of a run into its directory.

        Args:
            run: the directory.
            facts: what metrics.json should say beside the scores.
        """

    @abstractmethod
    def prediction_writer(self, directory: Path) -> PhotoWriter:
        """What writes predictions into a folder as they come."""

    @abstractmethod
    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """The content of metrics.json as a table for the terminal."""

    def load_whole(self) -> str:
        """Take all weights from ``weights``, to be evaluated without a checkpoint.

        Returns:
            The source.

        Raises:
            ValueError: weights are not all of this task.
        """
        raise ValueError(
            f"the weights of a backbone are not all of a {type(self).__name__}: name a checkpoint, --ckpt_path "
            "RUN/checkpoints/best.ckpt"
        )

    def setup(self, stage: str) -> None:
        """Apply the options of speed; do here what needs whole parameters, if the strategy deals them out.

        Raises:
            ValueError: as :meth:`Speed.apply`.
        """
        self._speed.apply(self, self.backbone)
        if stage == "fit" and self.trainer.strategy.restore_checkpoint_after_setup:
            self._dimensions = {name: parameter.ndim for name, parameter in self.named_parameters()}
            self._load_weights()

    def on_fit_start(self) -> None:
        """Give the backbone its weights, before the first step.

        Raises:
            ValueError: as :func:`flatten_dense.backbones.load_weights`.
        """
        self._load_weights()

    def _load_weights(self) -> None:
        resting = {id(parameter) for parameter in self.backbone.resting_parameters}
        names = [name for name, parameter in self.backbone.body.named_parameters() if id(parameter) in resting]
        if self._weights is not None:
            report = load_weights(self.backbone, self._weights, class_names=self.labels.class_names)
            rank_zero_info(f"{report}\n")
            self._weights = None
            fresh = tuple(row.name for row in report.of_kind("re-initialised"))
            names = [name for name in names if name.endswith(fresh)]
        elif self.backbone.is_pretrained or self.trainer.ckpt_path:
            return
        if names:
            rank_zero_warn(
                f"freeze.stages={self._freezing.stages} keeps {len(names)} tensors at random numbers, such as "
                f"{names[0]}: start from --model.weights that have them, or let their stages learn"
            )

    @abstractmethod
    def log_scores(self, prefix: str) -> None:
        """Log the scores of the evaluation that ends, under names that begin with ``val`` or ``test``."""

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole set."""
        self.log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole set."""
        self.log_scores("test")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, until the mode is again what it was."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def log_training(self, losses: dict[str, Tensor], batch_size: int) -> None:
        """Log the losses of a step, their means over all processes, and the learning rate it is taken with.

        Nothing is done at steps that the loggers leave out (``--trainer.log_every_n_steps``).
        """
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        # A call of Lightning's log takes a third of a millisecond. The first loss is for the progress bar.
        if self.global_step and (not every or (self.global_step + 1) % every):
            return
        for name, value in _mean_over_processes(losses).items():
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=batch_size)
        optimizer = self.optimizers()
        if isinstance(optimizer, Optimizer | list):
            first = optimizer[0] if isinstance(optimizer, list) else optimizer
            self.log("train/lr", first.param_groups[0]["lr"], batch_size=batch_size)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of eight forms
        """One optimiser, and a schedule that steps with it."""
        names = self.backbone.pretrained_names()
        below_head = self.backbone.depth.below_head if self._groups.layer_decay != 1 else dict.fromkeys(names, 0)
        in_task = {f"backbone.body.{name}": layers for name, layers in below_head.items()}
        optimizer = self._make_optimizer(self._groups(self, in_task, self._batch_scale(), self._dimensions))
        if self._schedule is None:
            for group in optimizer.param_groups:
                group["lr"] *= group["lr_scale"]
            return optimizer
        scheduler = self._schedule(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,  # noqa: ANN401 - Lightning's signature
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take the step, and free the gradients at once: the next forward pass has their memory."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def configure_callbacks(self) -> list[Callback]:
        """What unfreezes the backbone in the course of a fit."""
        return [GradualUnfreezing(self.backbone, self._freezing)] if self._freezing.unfreeze_at else []

    def _batch_scale(self) -> float:
        """What the learning rate is multiplied with for the images of a step."""
        if self._groups.reference_batch is None:
            return 1.0
        self.trainer.fit_loop.setup_data()
        loader = self.trainer.train_dataloader
        batch_size = getattr(loader, "batch_size", None) or getattr(
            getattr(loader, "batch_sampler", None), "batch_size", None
        )
        if batch_size is None:
            raise ValueError(
                f"groups.reference_batch={self._groups.reference_batch} needs to know the batch size, which the "
                f"{type(loader).__name__} of the training data does not say: leave it out, and set the learning rate "
                "for your batches"
            )
        processes, accumulated = self.trainer.world_size, self.trainer.accumulate_grad_batches
        images = batch_size * processes * accumulated
        scale = self._groups.batch_scale(images)
        rank_zero_info(
            f"The learning rate is meant for {self._groups.reference_batch} images a step; a step takes {images} "
            f"(batch {batch_size} x {processes} processes x {accumulated} accumulated), so it is multiplied by "
            f"{scale:g}, and so are the rates where the schedule starts and ends."
        )
        return scale

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip also where Lightning refuses: by the norm under FSDP, and for fused optimisers in bf16.

        There is no scaler in bf16, so that a fused optimiser finds no gradients to unscale.
        """
        model, precision = self.trainer.strategy.model, self.trainer.precision_plugin
        by_norm = gradient_clip_algorithm != GradClipAlgorithmType.VALUE
        if gradient_clip_val and by_norm and isinstance(model, FullyShardedDataParallel):
            model.clip_grad_norm_(gradient_clip_val)
        elif gradient_clip_val and isinstance(precision, MixedPrecision) and precision.scaler is None:
            clip = precision.clip_grad_by_norm if by_norm else precision.clip_grad_by_value
            clip(optimizer, gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what `test` and `predict` need beside the weights."""
        checkpoint[CHECKPOINT_KEY] = {
            "format": CHECKPOINT_FORMAT,
            "recipe": self.recipe,
            "labels": self.labels.to_dict(),
            "input_format": self.input_format.to_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of other classes or of another model, before torch lists every tensor that differs.

        Raises:
            ValueError: the checkpoint does not fit this task.
        """
        saved = checkpoint.get(CHECKPOINT_KEY)
        theirs = self.labels.class_names if saved is None else saved["labels"]["class_names"]
        if len(theirs) != self.labels.num_classes:
            raise ValueError(
                f"the checkpoint was trained on {len(theirs)} classes ({first_few(theirs)}), the data has "
                f"{self.labels.num_classes} ({first_few(self.labels.class_names)}): use the data set or the classes "
                "file it was trained with, or start a new fit"
            )
        self._weights = None  # the checkpoint has them all
        if "state_dict" not in checkpoint:
            return  # FSDP has loaded the weights already
        given = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        needed = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        differing = [
            f"{name} is {given.get(name, 'missing')} in the checkpoint and {needed.get(name, 'missing')} in the model"
            for name in sorted({*given, *needed})
            if given.get(name) != needed.get(name)
        ]
        if differing:
            raise ValueError(
                f"the checkpoint holds another model than the configuration describes; {len(differing)} tensors "
                f"differ, such as: {differing[0]}. Leave the model's options to the checkpoint, or give it those it "
                "was trained with"
            )


def _mean_over_processes(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return {name: value.detach() for name, value in losses.items()}
    # Lightning's sync_dist would make the processes wait for one another, once for each loss.
    values = torch.stack([value.detach() for value in losses.values()])
    distributed.all_reduce(values)
    return dict(zip(losses, values / distributed.get_world_size(), strict=True))
