"""With which code, and how many processes, the runs of an experiment were trained."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from experiments.json_files import write_json

_PACKAGES = ("flatten-dense", "torch", "lightning", "timm")


def this_code() -> dict[str, str]:
    """Versions of the packages, and the git commit if there is one, marked where files differ from it."""
    code = {name: version(name) for name in _PACKAGES}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        ended = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return code
    return code | {"commit": ended.stdout.strip()}


def note_start(note: Path, jobs: int, threads: int) -> str:
    """Add a start to an experiment.json.

    Args:
        note: the file; those of earlier versions know of no starts.
        jobs: runs at once.
        threads: of each run.

    Returns:
        In what its code differs from that of earlier starts; empty if in nothing.
    """
    content = json.loads(note.read_text(encoding="utf-8"))
    starts, code = content.get("starts", []), this_code()
    now = {"time": datetime.now().isoformat(timespec="seconds"), "jobs": jobs, "threads": threads, "code": code}
    write_json(note, content | {"starts": [*starts, now]})
    changes = []
    for name in (*_PACKAGES, "commit"):
        others = dict.fromkeys(start["code"].get(name, "none") for start in starts)
        if others.keys() - {code.get(name, "none")}:
            changes.append(f"{name} was {', '.join(others)} and is {code.get(name, 'none')}")
    return "; ".join(changes)
