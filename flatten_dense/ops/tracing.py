"""When an operator of ours has to give way to the composite of PyTorch's functions that it stands for."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

# torch 2.6 cannot tell export from compile, and compiles the composite.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def needs_composite() -> bool:
    """Whether the graph goes where our operators are unknown, or a transform asks for more than their derivatives."""
    return bool(
        _is_exporting()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
