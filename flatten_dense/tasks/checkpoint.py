"""Checkpoints: write them whole, read them without running them, and rebuild the task from one alone."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.fabric.plugins import TorchCheckpointIO

from flatten_dense.backbones.weights.files import read_torch_file
from flatten_dense.tasks.base import CHECKPOINT_FORMAT, CHECKPOINT_KEY, BaseTask
from flatten_dense.tasks.classification import ClassificationTask  # noqa: F401 - its name is looked up
from flatten_dense.tasks.detection import DetectionTask  # noqa: F401
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask  # noqa: F401

TRUSTED_PACKAGES = ("flatten_dense",)
_OF_OLDER_VERSIONS = ("no_decay", "freeze_backbone")  # now within groups and freeze
_TRAINING_ONLY = ("optimizer", "groups", "schedule", "weights", "freeze", "speed", "loss", *_OF_OLDER_VERSIONS)
_HELD_BY_LABELS = ("classes", "num_classes", "reduce_zero_label", "ignore_index", "label_map")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a Lightning checkpoint as plain data; nothing in it is executed.

    Raises:
        ValueError: the file is missing, damaged, no checkpoint, or would have to run code to be read.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such checkpoint; a run keeps its own in RUN/checkpoints")
    checkpoint = read_torch_file(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of a training run: it has no 'state_dict'")
    return checkpoint


def holds_recipe(path: Path) -> bool:
    """Whether a checkpoint says how its model is built; raises as :func:`read_checkpoint`."""
    return bool(read_checkpoint(path).get(CHECKPOINT_KEY, {}).get("recipe"))


def read_recipe(path: Path, trusted: Sequence[str] = ()) -> dict[str, Any]:
    """Configuration of the task in a checkpoint: ``model``, ``data`` and ``name``, with labels filled in.

    What only training needs is left out, and no pretrained weights are asked for: the checkpoint has them all.

    Args:
        path: a checkpoint written by this package.
        trusted: packages beside `flatten_dense` whose classes may be built.

    Raises:
        ValueError: the checkpoint cannot be read, holds no recipe, or names a class outside the trusted packages.
    """
    saved = read_checkpoint(path).get(CHECKPOINT_KEY)
    if saved is None or saved.get("recipe") is None:
        raise ValueError(
            f"{path} does not say how its model is built, since it was not saved by `flatten-dense fit`: validate and "
            "test take it with the recipe it was trained with, -c RECIPE"
        )
    if saved["format"] > CHECKPOINT_FORMAT:
        raise ValueError(f"{path} was written by a newer flatten_dense (format {saved['format']}): upgrade the package")
    recipe: dict[str, Any] = saved["recipe"]
    arguments, data = recipe["model"]["init_args"], recipe["data"]
    for name in _TRAINING_ONLY:
        arguments.pop(name, None)
    arguments["backbone"]["init_args"].pop("pretrained", None)
    for class_path in (data["class_path"], *_import_paths(recipe["model"])):
        if not any(class_path.startswith(f"{package}.") for package in (*TRUSTED_PACKAGES, *trusted)):
            package = class_path.partition(".")[0]
            raise ValueError(
                f"{path} asks for the class {class_path}, which is not ours: if you trust the file, say so by "
                f"--trust {package}, in Python by load_task(path, trusted=[{package!r}])"
            )
    for name in _HELD_BY_LABELS:
        data["init_args"].pop(name, None)
    data["init_args"]["labels"] = saved["labels"]
    recipe["labels"], recipe["input_format"] = saved["labels"], saved["input_format"]
    return recipe


def load_task(path: str | Path, trusted: Sequence[str] = ()) -> BaseTask:
    """Rebuild the task in a checkpoint with its weights, in evaluation mode, on the CPU.

    Args:
        path: a checkpoint written by `flatten-dense fit`.
        trusted: packages beside this one whose classes the checkpoint may name.

    Raises:
        ValueError: as :func:`read_recipe`.
    """
    path = Path(path)
    recipe = read_recipe(path, trusted)
    recipe["model"]["init_args"].update(labels=recipe["labels"], input_format=recipe["input_format"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BaseTask, "model")
    task: BaseTask = parser.instantiate(parser.parse_object({"model": recipe["model"]})).model
    checkpoint = read_checkpoint(path)
    task.on_load_checkpoint(checkpoint)
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and move it there: a kill in the middle leaves the earlier one whole.

    Lightning itself writes to the system's temporary folder, which may lie on another disk; moving is copying then.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401 - Lightning's signature
        """Save under another name in the same folder, then rename."""
        path = Path(path)
        draft = path.with_name(f".{path.name}.part")
        super().save_checkpoint(checkpoint, draft, storage_options)
        draft.replace(path)


def _import_paths(value: Any, key: str = "") -> list[str]:  # noqa: ANN401 - nested plain data
    """What jsonargparse would import: every class_path, and any string that may name a function of a module."""
    if isinstance(value, dict):
        return [path for name, child in value.items() for path in _import_paths(child, name)]
    if isinstance(value, list):
        return [path for child in value for path in _import_paths(child)]
    if not isinstance(value, str):
        return []
    *module, _ = parts = value.split(".")
    may_import = module and all(part.isidentifier() for part in parts) and find_spec(parts[0]) is not None
    return [value] if key == "class_path" or may_import else []
