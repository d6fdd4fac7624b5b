"""Options whose value is null."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from jsonargparse import Namespace

_NESTED = re.compile(r"--(?P<group>(?:model|data)(?:\.\w+)+)\.(?P<name>\w+)(?P<null>=null)?")


def with_nulls(args: Sequence[str]) -> list[str]:
    """Say ``--data.GROUP.NAME null`` as ``--data.GROUP '{"NAME": null}'``.

    jsonargparse (4.53) hands an option inside a group of a class on as text, where null has become the word None.

    ``options``, which have names of their own, stay as they are: said so, they would replace all others of the recipe.
    They are for :func:`restore_nulls`.
    """
    words: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        match = _NESTED.fullmatch(word)
        if match and not _is_open(match) and (match["null"] or rest[:1] == ["null"]):
            if not match["null"]:
                rest.pop(0)
            words += [f"--{match['group']}", json.dumps({match["name"]: None})]
        else:
            words.append(word)
    return words


def restore_nulls(config: Namespace, args: Sequence[str]) -> None:
    """Make the word None, where it was ``--model.GROUP.options.NAME null``, what it was.

    Args:
        config: parsed.
        args: that were parsed.
    """
    for word, following in zip(args, [*args[1:], ""], strict=True):
        match = _NESTED.fullmatch(word)
        if match and _is_open(match) and (match["null"] or following == "null"):
            found = config
            for name in match["group"].split("."):
                if name != "init_args":
                    found = found[name]
                    found = found.get("init_args", found)
            if found[match["name"]] == "None":
                found[match["name"]] = None


def _is_open(match: re.Match[str]) -> bool:
    return match["group"].endswith(".options")
