"""What configuration a command starts from: recipes by name, the run that is resumed, the checkpoint."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flatten_dense.commands.recipes import find_recipe
from flatten_dense.commands.runs import newest_config, run_of
from flatten_dense.tasks.checkpoint import holds_recipe, read_checkpoint, read_recipe

_WEIGHTS = re.compile(r"--model(\.init_args)?\.weights(=|$)")


def with_recipes(verb: str, args: Sequence[str]) -> list[str]:
    """Turn recipe names into files, and put what a checkpoint says of itself before all of them.

    Args:
        verb: `fit`, `validate`, `test` or `predict`.
        args: the options after the verb.

    Returns:
        Options for Lightning's parser.

    Raises:
        ValueError: there is no such recipe, or neither a recipe nor a checkpoint says what the model is.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("-c", "--config", action="append", default=[])
    finder.add_argument("--ckpt_path", type=Path)
    finder.add_argument("--trust", action="append", default=[])
    known, rest = finder.parse_known_args(args)
    recipes = [find_recipe(name) for name in known.config]
    checkpoint: Path | None = known.ckpt_path
    stack, name = [str(path) for path in recipes], recipes[0].stem if recipes else None
    if checkpoint is not None:
        rest += ["--ckpt_path", str(checkpoint)]
    if not any(_asks_for_help(option) for option in rest):
        if verb == "fit":
            stack = stack or [str(_config_to_resume(checkpoint))]
        elif not (recipes and checkpoint is None and verb in ("validate", "test") and any(map(_WEIGHTS.match, rest))):
            recipe = _recipe_of_checkpoint(verb, checkpoint, known.trust, has_recipe=bool(recipes))
            stack = [*([json.dumps(recipe)] if recipe else []), *stack]
    # The name comes first: one in a config wins over the recipe's file name, and --name over both.
    default_name = ["--name", name] if name and verb != "predict" else []
    return default_name + [option for path in stack for option in ("--config", path)] + rest


def _asks_for_help(option: str) -> bool:
    name = option.partition("=")[0]
    return name in ("-h", "--help", "--print_config") or name.endswith(".help")


def _config_to_resume(checkpoint: Path | None) -> Path:
    if checkpoint is None:
        raise ValueError("fit needs a recipe: -c NAME (see `flatten-dense recipes`) or -c FILE.yaml")
    read_checkpoint(checkpoint)
    run = run_of(checkpoint)
    if run is None:
        raise ValueError(f"--ckpt_path {checkpoint} does not lie in a run: name its recipe too, -c RECIPE")
    return newest_config(run)


def _recipe_of_checkpoint(
    verb: str, checkpoint: Path | None, trusted: list[str], has_recipe: bool
) -> dict[str, Any] | None:
    """The configuration that a checkpoint holds, in the form of this verb's parser; None if -c stands in for it."""
    if checkpoint is None:
        published = "" if verb == "predict" else ", or of a whole classifier -c RECIPE --model.weights SOURCE"
        raise ValueError(f"{verb} needs the weights to use: --ckpt_path RUN/checkpoints/best.ckpt{published}")
    if verb == "predict" and has_recipe:
        raise ValueError("predict takes model, classes and image size from the checkpoint: leave out -c")
    if has_recipe and not holds_recipe(checkpoint):
        return None
    saved = read_recipe(checkpoint, trusted)
    if verb == "predict":
        return {"model": saved["model"], "data": {"labels": saved["labels"], "input_format": saved["input_format"]}}
    return {"name": saved["name"], "model": saved["model"], "data": saved["data"]}
