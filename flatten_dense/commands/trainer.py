"""`fit`, `validate`, `test` and `predict`: Lightning's command line over our tasks, with runs and recipes."""

import importlib
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, LambdaCallback, ModelCheckpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from torch import cuda

from flatten_dense import heads, losses, necks  # noqa: F401 - so that recipes can name their classes
from flatten_dense.callbacks import (
    BestEvaluation,
    CurvePlotter,
    DueValidation,
    LastCheckpoint,
    Preemption,
    RandomStates,
    Resumption,
)
from flatten_dense.commands.configuration import with_recipes
from flatten_dense.commands.dry_run import dry_run, trial_options
from flatten_dense.commands.null_options import restore_nulls
from flatten_dense.commands.resume import describe_changes, require_resumable
from flatten_dense.commands.runs import new_run, newest_config, run_of, save_config
from flatten_dense.data import classification, detection  # noqa: F401 - so that --data can name its data modules
from flatten_dense.data.ade20k import ADE20KDataModule  # noqa: F401
from flatten_dense.data.base import BaseDataModule
from flatten_dense.data.folder_pairs import FolderPairsDataModule  # noqa: F401
from flatten_dense.data.photos import PhotoDataModule
from flatten_dense.loggers import AppendingCSVLogger
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.checkpoint import AtomicCheckpointIO, read_checkpoint
from flatten_dense.tasks.classification import ClassificationTask  # noqa: F401
from flatten_dense.tasks.detection import DetectionTask  # noqa: F401
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask  # noqa: F401


class TrainerCLI(LightningCLI):
    """One Trainer verb with a run directory around it.

    Args:
        verb: `fit`, `validate`, `test` or `predict`.
        args: the options after the verb.

    Raises:
        ValueError: an option, a recipe, a checkpoint or the data are not as expected.
        argparse.ArgumentError: jsonargparse refuses an option.
    """

    model: BaseTask
    datamodule: BaseDataModule | PhotoDataModule

    def __init__(self, verb: str, args: Sequence[str]) -> None:
        self.verb = verb
        self.run_directory: Path | None = None
        self._evaluated: dict[str, str] = {}
        self._starts_anew = any(arg.partition("=")[0] in ("--name", "--runs") for arg in args)
        args = [verb, *with_recipes(verb, args)]
        _silence()
        super().__init__(
            BaseTask,
            PhotoDataModule if verb == "predict" else BaseDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            # One process reports on all photos.
            trainer_defaults={"devices": 1} if verb == "predict" else {},
            subclass_mode_model=True,
            subclass_mode_data=verb != "predict",
            parser_kwargs={"exit_on_error": False, verb: {"exit_on_error": False}},
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the verb asked for: a parser of all Trainer options takes a while to build."""
        return {self.verb: {*LightningCLI.subcommands()[self.verb], "weights_only", "return_predictions", "verbose"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the given options; sys.argv stays what further processes of this run are started with."""
        assert isinstance(args, list)
        self.config = parser.parse_args(args)
        restore_nulls(self.config[self.verb], args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our own options, and what the model learns from the data."""
        target = "model.init_args"
        if self.verb != "fit":
            parser.add_argument(
                "--trust", type=list[str], default=[], help="a package of yours whose classes a checkpoint may name"
            )
        parser.link_arguments("data.labels", f"{target}.labels", apply_on="instantiate")
        parser.link_arguments("data.input_format", f"{target}.input_format", apply_on="instantiate")
        if self.verb == "predict":
            parser.add_argument("--input", type=str, required=True, help="a photo, or a folder of photos")
            parser.add_argument("--output", type=str, required=True, help="a new or empty folder for the predictions")
            parser.link_arguments("input", "data.input")
            return
        parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
        parser.add_argument("--name", type=str, default=None, help="name of this run (default: the recipe's)")
        # The other verbs take it too, so that they can read the config.yaml of a run.
        parser.add_argument("--save_every", type=int, default=200, help="fit: optimiser steps between two last.ckpt")
        parser.add_argument(
            *("--dry_run", "--dry-run"),
            action="store_true",
            help="fit: run the heaviest batches, write nothing, and say how much memory and time the training takes",
        )

    def before_instantiate_classes(self) -> None:
        """Check what does not need the model."""
        if self.verb == "fit" and self._get(self.config, "save_every") < 1:
            raise ValueError(f"--save_every must be at least 1 step, got {self._get(self.config, 'save_every')}")
        if self.verb != "predict":
            task, data = (_import_class(self._get(self.config, name)["class_path"]) for name in ("model", "data"))
            if task.labels_type is not data.labels_type:
                raise ValueError(
                    f"{task.__name__} cannot learn from {data.__name__}: give --model and --data of one kind, "
                    "segmentation, detection or classification; a recipe (-c) does"
                )
        if self.verb == "predict":
            output = Path(self._get(self.config, "output"))
            if output.exists() and (not output.is_dir() or any(output.iterdir())):
                raise ValueError(f"--output {output}: not an empty folder; name a new one, nothing is overwritten")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's signature
        """Give the run its directory, its loggers and its callbacks."""
        if isinstance(self.datamodule, PhotoDataModule):
            self.datamodule.max_pixels = self.model.max_pixels
        self.datamodule.setup(self.verb)
        if self.verb in ("validate", "test") and not self._get(self.config, "ckpt_path"):
            self._evaluated = {"weights": self.model.load_whole()}
        parser, config = self._parser(self.verb), self.config[self.verb]
        settings = json.loads(parser.dump(config, format="json", skip_unset=False))
        self.model.recipe = {"name": self._run_name(), "model": settings["model"], "data": settings.get("data")}
        callbacks: list[Callback] = [RichProgressBar() if sys.stdout.isatty() else TQDMProgressBar(refresh_rate=10)]
        if settings["trainer"].get("enable_progress_bar") is False:
            callbacks.clear()
        if self.verb == "predict":
            self.writer = self.model.prediction_writer(Path(self._get(self.config, "output")))
            kwargs |= {"logger": False, "enable_checkpointing": False}
            callbacks.append(self.writer)
        elif self._is_dry_run:
            self._scratch = TemporaryDirectory()
            kwargs |= trial_options(self._scratch.name)
            callbacks.clear()
        else:
            dumped = parser.dump(config, skip_unset=False)
            run, resume_step = self._start_run(dumped)
            self.run_directory = run
            if resume_step is not None:  # not before it is sure that the run can go on with it
                callbacks.append(LambdaCallback(on_train_start=lambda *_: save_config(run, dumped)))
            kwargs["logger"] = self._loggers(run, resume_step)
            kwargs["default_root_dir"] = run
            callbacks += self._run_callbacks(run)
            for callback in callbacks:
                if isinstance(callback, BestEvaluation):
                    callback.goes_on = resume_step is not None
        trainer_config = self._get(self.config_init, "trainer")
        if trainer_config["sync_batchnorm"] and (trainer_config["accelerator"] == "cpu" or not cuda.is_available()):
            trainer_config["sync_batchnorm"] = False
            rank_zero_info("sync_batchnorm needs GPUs: on the CPU this run uses plain BatchNorm, each process its own")
        for name, ours in (("callbacks", callbacks), ("plugins", [AtomicCheckpointIO()])):
            chosen = trainer_config.get(name) or []
            chosen = chosen if isinstance(chosen, list) else [chosen]
            if self._is_dry_run:
                chosen = [own for own in chosen if not isinstance(own, Checkpoint)]
            # Theirs come last, so that ours see the weights which EMA has put in place.
            trainer_config[name] = [*ours, *chosen]
        return super().instantiate_trainer(**kwargs)

    def fit(self, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        """Run the Trainer's fit, or try it out."""
        if not self._is_dry_run:
            self.trainer.fit(**kwargs)
            return
        assert isinstance(self.datamodule, BaseDataModule)
        settings = self._get(self.config_init, "trainer")
        with self._scratch:
            report = dry_run(self.trainer, self.model, self.datamodule, settings, kwargs.get("ckpt_path"))
        rank_zero_info(report)

    def predict(self, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        """Run the Trainer's predict; the writer has each mask, none is kept in memory."""
        self.trainer.predict(return_predictions=False, **kwargs)

    def after_fit(self) -> None:
        """Say where everything is."""
        if self.run_directory is not None:  # a dry run has none
            self._report()

    after_validate = after_test = after_fit

    def after_predict(self) -> None:
        """Say where everything is.

        Raises:
            ValueError: some photos could not be read or segmented; the others are done.
        """
        writer = self.writer
        rank_zero_info(writer.summary)
        if writer.failed:
            raise ValueError(f"{len(writer.failed)} photos could not be done:\n  " + "\n  ".join(writer.failed))

    @property
    def _is_dry_run(self) -> bool:
        return self.verb == "fit" and bool(self._get(self.config, "dry_run"))

    def _run_name(self) -> str:
        name = self._get(self.config, "name")
        return str(name or "run")

    def _start_run(self, config: str) -> tuple[Path, int | None]:
        """The run's directory, where its configuration is kept; and the step it resumes from if it does."""
        path = self._get(self.config, "ckpt_path")
        if self.verb == "fit" and path:
            checkpoint, resumed = read_checkpoint(Path(path)), run_of(Path(path))
            require_resumable(Path(path), checkpoint, self.model)
            changes = describe_changes(newest_config(resumed).read_text(), config) if resumed else ""
            if changes:
                rank_zero_info(f"The command line changes the options of the run it goes on with:\n{changes}\n")
            if resumed and not self._starts_anew:
                return resumed, int(checkpoint["global_step"])
        suffix = "" if self.verb == "fit" else f"-{self.verb}"
        run = new_run(Path(self._get(self.config, "runs")), self._run_name() + suffix)
        save_config(run, config)
        return run, None

    def _loggers(self, run: Path, resume_step: int | None) -> list[Logger] | bool:
        chosen = self._get(self.config_init, "trainer").get("logger")
        if chosen is False:
            return False
        ours: list[Logger] = [
            AppendingCSVLogger(run, resume_step),
            TensorBoardLogger(run, name="tensorboard", version="", default_hp_metric=False, purge_step=resume_step),
        ]
        if chosen in (None, True):
            return ours
        return ours + (chosen if isinstance(chosen, list) else [chosen])

    def _run_callbacks(self, run: Path) -> list[Callback]:
        facts: dict[str, Any] = {"split": "test" if self.verb == "test" else "validation"}
        if self.verb != "fit":
            facts |= self._evaluated or {"checkpoint": str(self._get(self.config, "ckpt_path"))}
        callbacks = self.model.evaluation_callbacks(run, facts)
        if self.verb != "fit":
            return callbacks
        every = self._get(self.config, "save_every")
        rank_zero_info(f"The run is in {run}; checkpoints/last.ckpt is saved every {every} steps.")
        directory = run / "checkpoints"
        best = ModelCheckpoint(directory, "best", monitor=self.model.monitor, mode="max", enable_version_counter=False)
        last = LastCheckpoint(directory / "last.ckpt", every)
        # The last checkpoint comes last: it holds what the others know.
        resuming = [RandomStates(), Resumption(), DueValidation()]
        return [*callbacks, CurvePlotter(run), *resuming, best, last, Preemption(last)]

    def _report(self) -> None:
        run = self.run_directory
        assert run is not None
        metrics = run / "metrics.json"
        if metrics.exists():
            rank_zero_info(self.model.describe_metrics(json.loads(metrics.read_text())))
        written = {
            "pictures": "pictures",
            "metrics": "metrics.json",
            "per class": "per_class.csv",
            "detections": "detections.json",
            "curves": "curves.png",
        }
        for what, name in written.items():
            path = run / name
            if path.exists():
                rank_zero_info(f"{what:>11}: {path}")
        best = run / "checkpoints" / "best.ckpt"
        if best.exists():
            rank_zero_info(f"{'best model':>11}: {best}")


def run(verb: str, args: Sequence[str]) -> TrainerCLI:
    """Carry out one Trainer verb."""
    return TrainerCLI(verb, args)


def _import_class(path: str) -> Any:  # noqa: ANN401 - a task or a data module
    """The class that a class_path names, which jsonargparse has found already."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _silence() -> None:
    """Keep back what Lightning says that no user of ours can act on."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # their number follows the CPUs there are
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # ours begins where the checkpoint ended
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # DDP, of depthwise convolutions
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")  # a resume writes where its run is
    warnings.filterwarnings("ignore", ".*recommended to use .*sync_dist=True.*")  # scores are the same in every process
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # frozen stages are meant to be
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint.*")  # a test needs none of a fit's
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_without_advertising)


def _without_advertising(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage() and "litmodels" not in record.getMessage()
