"""From a checkpoint alone: read it without running it, and rebuild the task that it holds."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from flatten_dense.tasks.base import CHECKPOINT_FORMAT, CHECKPOINT_KEY, BaseTask
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask  # noqa: F401 - its name is looked up

TRUSTED_PACKAGES = ("flatten_dense", "torch.optim")
_TRAINING_ONLY = ("optimizer", "no_decay", "schedule")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a Lightning checkpoint as plain data; nothing in it is executed.

    Raises:
        ValueError: the file is missing, damaged, no checkpoint, or would have to run code to be read.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such checkpoint; a run keeps its own in RUN/checkpoints")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # torch raises a dozen types for as many kinds of damage
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason[0][:120] if reason else type(error).__name__}): it may be "
            "cut short, be another kind of file, or hold pickled objects, which are never executed here"
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of a training run: it has no 'state_dict'")
    return checkpoint


def read_recipe(path: Path, trusted: Sequence[str] = ()) -> dict[str, Any]:
    """Configuration of the task in a checkpoint: ``model``, ``data`` and ``name``, with labels filled in.

    What only training needs is left out, and no pretrained weights are asked for: the checkpoint has them all.

    Args:
        path: a checkpoint written by this package.
        trusted: packages beside `flatten_dense` and `torch.optim` whose classes may be built.

    Raises:
        ValueError: the checkpoint cannot be read, holds no recipe, or names a class outside the trusted packages.
    """
    saved = read_checkpoint(path).get(CHECKPOINT_KEY)
    if saved is None or saved.get("recipe") is None:
        raise ValueError(
            f"{path} does not say how its model is built (it was not saved by `flatten-dense fit`): name the recipe "
            "it was trained with, -c RECIPE"
        )
    if saved["format"] > CHECKPOINT_FORMAT:
        raise ValueError(f"{path} was written by a newer flatten_dense (format {saved['format']}): upgrade the package")
    recipe: dict[str, Any] = saved["recipe"]
    for class_path in _import_paths(recipe):
        if not any(class_path.startswith(f"{package}.") for package in (*TRUSTED_PACKAGES, *trusted)):
            raise ValueError(
                f"{path} asks for the class {class_path}, which is not ours: if you trust the file, call "
                f"load_task(path, trusted=[{class_path.partition('.')[0]!r}]), or name its recipe with -c RECIPE"
            )
    arguments = recipe["model"]["init_args"]
    for name in _TRAINING_ONLY:
        arguments.pop(name, None)
    arguments["backbone"]["init_args"].pop("pretrained", None)
    recipe["data"]["init_args"]["labels"] = saved["labels"]
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
    task.load_state_dict(read_checkpoint(path)["state_dict"])
    return task.eval()


def _import_paths(value: Any, key: str = "") -> list[str]:  # noqa: ANN401 - nested plain data
    """What jsonargparse would import: every class_path, and any string that may name a function of a module."""
    if isinstance(value, dict):
        return [path for name, child in value.items() for path in _import_paths(child, name)]
    if isinstance(value, list):
        return [path for child in value for path in _import_paths(child)]
    if not isinstance(value, str):
        return []
    module, dot, _ = value.partition(".")
    may_import = dot and module.isidentifier() and find_spec(module) is not None
    return [value] if key == "class_path" or may_import else []
