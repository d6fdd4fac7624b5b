import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOOL = Path(__file__).parents[2] / "tools" / "large_image.py"


def segment_large(height: int) -> dict[str, Any]:
    # In a process of its own, whose largest memory nothing else has set.
    size = ["--height", str(height), "--width", "6000"]
    options = [*size, "--backbone", "flatten_pvt_test", "--channels", "16", "--classes", "20"]
    done = subprocess.run([sys.executable, TOOL, *options], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_the_height_of_a_large_tiff():
    low, high = segment_large(2000), segment_large(6000)
    assert high["mask"] == [6000, 6000]
    assert high["full_logits_GiB"] > 2.5
    assert high["peak_GiB"] - high["peak_GiB_before"] < 0.8
    assert high["peak_GiB"] - low["peak_GiB"] < 0.15
