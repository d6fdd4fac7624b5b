"""JSON files that are whole whenever the script is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def draft_of(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f"{path.name}.part")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file in one go."""
    draft = draft_of(path)
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, path)
