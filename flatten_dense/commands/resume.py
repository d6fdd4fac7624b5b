"""What differs between a run and the command line that resumes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import get_loader

from flatten_dense.data.images import first_few
from flatten_dense.tasks.base import CHECKPOINT_KEY, BaseTask

# Where a run lies and where it comes from is not how it trains.
_ASIDE = ("ckpt_path", "config", "runs", "name", "dry_run", "weights_only", "verbose", "return_predictions")
_LONGEST = 48


def describe_changes(was: str, now: str) -> str:
    """The options that differ between two configurations, as a table; empty if none does.

    Args:
        was: the resolved configuration of the run, YAML.
        now: that of the command line.
    """
    load = get_loader("yaml")
    old, new = (dict(_options(load(text))) for text in (was, now))
    changed = [
        (option, _short(old.get(option, "(none)")), _short(new.get(option, "(none)")))
        for option in sorted({*old, *new})
        if old.get(option) != new.get(option)
    ]
    if not changed:
        return ""
    rows = [("option", "was", "is now"), *changed]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {option:{widths[0]}}  {before:{widths[1]}}  {after}" for option, before, after in rows)


def require_resumable(path: Path, checkpoint: dict[str, Any], task: BaseTask) -> None:
    """See that a training can go on with the options given.

    Args:
        path: of the checkpoint.
        checkpoint: its content.
        task: as it is configured now.

    Raises:
        ValueError: the model, its classes or the optimiser are others, or there is no state of a training.
    """
    if not checkpoint.get("optimizer_states"):
        raise ValueError(
            f"--ckpt_path {path} holds weights alone, no state of a training that could go on: start a new fit with "
            f"--model.weights {path}"
        )
    saved = checkpoint.get(CHECKPOINT_KEY, {})
    theirs, ours = saved.get("labels", task.labels.to_dict())["class_names"], task.labels.class_names
    if list(theirs) != list(ours):
        raise ValueError(
            f"--ckpt_path {path} was trained on the classes {first_few(theirs)} ({len(theirs)}), the data has "
            f"{first_few(ours)} ({len(ours)}), and names and order must be the same: use the data set or the class "
            f"list it was trained with, or start a new fit from its backbone, --model.weights {path}"
        )
    was, now = (_optimizer(recipe) for recipe in (saved.get("recipe"), task.recipe))
    if was and now and was != now:
        raise ValueError(
            f"--ckpt_path {path} was trained with {was}, whose state is of no use to {now}: keep the optimiser, or "
            f"start a new fit with --model.weights {path}"
        )
    task.on_load_checkpoint(checkpoint)


def _optimizer(recipe: Mapping[str, Any] | None) -> str | None:
    chosen = ((recipe or {}).get("model") or {}).get("init_args", {}).get("optimizer")
    return str(chosen["class_path"]) if isinstance(chosen, dict) else chosen


def _options(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Values by the names that the command line gives them."""
    if not isinstance(config, dict) or not config:
        yield prefix, config
        return
    for key, value in config.items():
        if not prefix and key in _ASIDE:
            continue
        if key == "class_path":
            yield prefix, value
        elif key != "init_args":
            yield from _options(value, f"{prefix}.{key}".lstrip("."))
        elif value:
            yield from _options(value, prefix)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
