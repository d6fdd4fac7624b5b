"""The device that an option names."""

from __future__ import annotations

import torch


def find_device(name: str | None) -> torch.device:
    """The device of ``--device``: a GPU if there is one and none is named.

    Raises:
        ValueError: it is no CPU and no GPU of CUDA, or PyTorch cannot use it here.
    """
    try:
        device = torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: PyTorch cannot use it here ({str(error).splitlines()[0]})") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: must be cpu or cuda (or one of several GPUs, cuda:1)")
    return device
