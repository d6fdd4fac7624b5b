"""The `flatten-dense` command: finds the sub-command, runs it, and says in plain words what went wrong."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence

from flatten_dense.commands.null_options import with_nulls

# Help must not wait for Lightning: a sub-command's module is imported when it is called.
_COMMANDS = {
    "demo": "make the embedded data set, train on it, evaluate, predict; minutes on a laptop",
    "recipes": "list the packaged recipes that -c understands",
    "models": "list the backbones: parameters and multiply-accumulates at a --size, beside the paper's figures",
    "profile": "time and memory of models on this machine, and which attention to use: MODEL... --sizes 224,512,1024",
    "check-data": "read a whole data set and report all problems: -c RECIPE --data.root DIR [--json]",
    "make-shards": "put a folder of classified photos into a few tar files, to be streamed: ROOT OUT",
    "fit": "train: -c RECIPE --data.root DIR; resume: --ckpt_path RUN/checkpoints/last.ckpt",
    "validate": "score the validation split: --ckpt_path FILE --data.root DIR",
    "test": "score the test split: --ckpt_path FILE --data.root DIR",
    "knn": "score a frozen backbone by nearest neighbours: --ckpt_path FILE --data.root DIR",
    "predict": "segment photos, or find objects: --ckpt_path FILE --input PHOTOS --output DIR",
}
_TRAINER_VERBS = ("fit", "validate", "test", "predict")
_TRACEBACK = "FLATTEN_DENSE_TRACEBACK"


def main(args: Sequence[str] | None = None) -> int:
    """Run `flatten-dense` with these arguments; sys.argv's by default. Return the exit status."""
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())  # noqa: T201 - the command's own output
        return 0
    name, rest = arguments[0], with_nulls(arguments[1:])
    try:
        if name not in _COMMANDS:
            raise ValueError(f"there is no command {name!r}{_suggestion(name, list(_COMMANDS))}")
        if name in _TRAINER_VERBS:
            importlib.import_module("flatten_dense.commands.trainer").run(name, rest)
        else:
            status = importlib.import_module(f"flatten_dense.commands.{name.replace('-', '_')}").run(rest)
            return int(status or 0)
    except Exception as error:
        if os.environ.get(_TRACEBACK) or not _is_for_the_user(error):
            raise
        sys.stderr.write(f"\nflatten-dense {name}: {plain_words(error, rest)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\nflatten-dense {name}: stopped by the keyboard\n")
        return 130
    return 0


def plain_words(error: Exception, args: Sequence[str] = ()) -> str:
    """The one message in an error that its reader can act on.

    Args:
        error: as raised by a command, perhaps in a worker process of a data loader.
        args: what the user gave, to name an option that was not understood.
    """
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    # What the constructor of an argument refuses, jsonargparse buries in the same list as a value of a wrong type.
    if isinstance(error, argparse.ArgumentError) or message.startswith("Does not validate against any"):
        return _option_error(message, args)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    # A loader's worker sends its traceback as text; the message is what follows the last exception name.
    if "Original Traceback" in message:
        message = re.split(r"\n[\w.]*Error: ", message)[-1]
    return f"{message.strip()}\n  ({_TRACEBACK}=1 shows where this was raised)"


def _is_for_the_user(error: Exception) -> bool:
    # By name, since Lightning may not have been imported yet.
    lightning_refuses = type(error).__name__ == "MisconfigurationException"
    return lightning_refuses or isinstance(error, ValueError | OSError | argparse.ArgumentError)


def _option_error(message: str, args: Sequence[str]) -> str:
    """Keep, of the list of every type that jsonargparse tried, the lines that say what is wrong with what."""
    unknown = re.search(r"[Uu]nrecognized arguments: (.*)|Option '(\S+)' is not accepted", message)
    if unknown:
        given = unknown.group(1) or next((a for a in args if unknown.group(2) in a), unknown.group(2))
        return f"unknown option {given}; `flatten-dense COMMAND --help` lists them, and so does a run's config.yaml"
    noise = re.compile(
        r"\s*(- )?(Does not validate against any|Subtypes: |Errors:$|Expected a <class 'NoneType'>|Given value"
        r"|Problem with given class_path|Type collections)"
    )
    lines = [line.strip(" -") for line in message.splitlines() if line.strip() and not noise.match(line)]
    text = "\n  ".join(line[:300] for line in lines) or message[:500]
    text = re.sub(r"Parser key \"([^\"]+)\"", r"option --\1", text)
    # The option of a class is told inside out: "option --data:", then "option --crop_size:".
    return re.sub(r"(option --[\w.]+):\s+option --", r"\1.", text)


def _suggestion(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: flatten-dense COMMAND [options]",
            "",
            "Dense prediction at high resolution with focused linear attention.",
            "",
            *lines,
            "",
            "`flatten-dense COMMAND --help` lists a command's options.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
