"""What measurements depend on besides the model: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from flatten_dense.profiling.memory import available_memory


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Processor, memory, system and versions, as JSON may hold them.

    Args:
        device: that is measured; of a GPU its name and memory are told, too.
    """
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "available_memory": available_memory(torch.device("cpu")),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": version("timm"),
        "flatten_dense": version("flatten-dense"),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "gpu_memory": properties.total_memory, "cuda": torch.version.cuda}
    return facts


def processor_name() -> str:
    """The processor, as it calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
