"""Packaged recipes, found by name."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import flatten_dense


def recipe_directory() -> Path:
    """Where the recipes lie: inside an installed package, or beside the package in a source checkout."""
    package = Path(flatten_dense.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Names that `-c` understands, such as `segmentation/flatten_pvt_fpn_ade20k`."""
    root = recipe_directory()
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("base/"))


def find_recipe(name: str) -> Path:
    """The file of a recipe, given by path or by name.

    Raises:
        ValueError: there is neither such a file nor such a recipe.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = recipe_directory() / f"{name.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    names = recipe_names()
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"the recipes are: {', '.join(names)}"
    raise ValueError(f"-c {name}: there is no such file and no such recipe; {hint}")


def run(args: Sequence[str]) -> None:
    """`flatten-dense recipes`: list the names with the first line of each recipe's head comment."""
    argparse.ArgumentParser(prog="flatten-dense recipes", description=run.__doc__).parse_args(args)
    for name in recipe_names():
        first_line = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0]
        sys.stdout.write(f"{name}\n    {first_line.lstrip('# ')}\n")
    sys.stdout.write("\nThe files are in " + str(recipe_directory()) + "\n")
