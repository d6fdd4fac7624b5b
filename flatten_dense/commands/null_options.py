"""Options whose value is null."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

_NESTED = re.compile(r"(--(?:model|data)(?:\.\w+)+)\.(\w+)(=null)?")


def with_nulls(args: Sequence[str]) -> list[str]:
    """Say ``--data.GROUP.NAME null`` as ``--data.GROUP '{"NAME": null}'``.

    jsonargparse (4.53) hands an option inside a group of a class on as text, where null has become the word None.
    """
    words: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        match = _NESTED.fullmatch(word)
        if match and (match[3] or rest[:1] == ["null"]):
            if not match[3]:
                rest.pop(0)
            words += [match[1], json.dumps({match[2]: None})]
        else:
            words.append(word)
    return words
