import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "large_image.py"


def test_memory_does_not_grow_with_the_logits_of_a_large_tiff():
    # In a process of its own, whose largest memory nothing else has set.
    size = ["--height", "6000", "--width", "6000"]
    options = [*size, "--backbone", "flatten_pvt_test", "--channels", "16", "--classes", "20"]
    done = subprocess.run([sys.executable, TOOL, *options], check=True, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mask"] == [6000, 6000]
    assert result["full_logits_GiB"] > 2.5
    assert result["peak_GiB"] - result["peak_GiB_before"] < 0.8
