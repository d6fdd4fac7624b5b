"""Single sections of recipes, for commands that are no Trainer verb."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import get_loader


def recipe_section(recipe: Path, name: str) -> object:
    """A section of a recipe, whether it stands there or in a file that the recipe names.

    Raises:
        ValueError: the recipe is no YAML file, or has no such section.
    """
    content = _read_yaml(recipe)
    if not isinstance(content, dict) or name not in content:
        raise ValueError(f"-c {recipe}: the recipe has no section {name!r}")
    section = content[name]
    if isinstance(section, str) and (recipe.parent / section).is_file():  # a path in a recipe is relative to it
        return _read_yaml(recipe.parent / section)
    return section


def class_named(section: object) -> str | None:
    """Name of the class that a section configures, without its module; None if it does not say."""
    path = section.get("class_path") if isinstance(section, dict) else section
    return path.rpartition(".")[2] if isinstance(path, str) else None


def _read_yaml(path: Path) -> object:
    try:
        content: object = get_loader("yaml")(path.read_text(encoding="utf-8"))
    except Exception as error:  # a YAML library's errors have no base that jsonargparse names
        raise ValueError(f"-c {path}: this is no YAML file ({error})") from None
    return content
