"""Other cores in the place of a model's own, to be compared on the same queries, keys and values."""

from __future__ import annotations

import copy
import re
from typing import cast

import torch
from torch import nn

from flatten_dense.backbones.cswin import CrossShapedAttention
from flatten_dense.layers import (
    FocusedLinearAttention,
    LocallyEnhancedAttention,
    Size,
    SoftmaxAttention,
    SwinWindowAttention,
    WindowedAttention,
    make_core,
)
from flatten_dense.layers.windows import WindowLayout


def replace_core(own: nn.Module, name: str, dim: int, num_heads: int, size: Size) -> tuple[nn.Module, tuple[str, ...]]:
    """A core of another kind, within the windows and beside the convolution that the model's own has around it.

    It has the own core's parameters wherever name and shape are the same. What it has beyond them starts as in a new
    model, from a seed of its own. Softmax attention within Swin's windows has their bias.

    Args:
        own: the model's, left as it is.
        name: of :data:`flatten_dense.layers.CORE_NAMES`, perhaps with its power.
        dim: C.
        num_heads: G.
        size: (H, W) of the keys.

    Returns:
        The core in float64 and evaluation mode, and the names of its parameters that are not the model's,
        without the levels of what is around it.

    Raises:
        ValueError: there is no such core.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        core = _rebuild(own, name, dim, num_heads, size).double().eval()
    given = own.state_dict()
    known = {
        key: given[key]
        for key, tensor in core.state_dict().items()
        if key in given and given[key].shape == tensor.shape
    }
    core.load_state_dict(known, strict=False)
    return core, tuple(dict.fromkeys(_bare(key) for key in core.state_dict() if key not in known))


def windows_of(core: nn.Module, size: Size) -> tuple[Size, ...]:
    """(height, width) of the windows that a core attends within; none if it sees the whole map of ``size``."""
    if isinstance(core, CrossShapedAttention):
        return tuple(window for half in core.cores for window in windows_of(half, size))
    if isinstance(core, LocallyEnhancedAttention):
        return windows_of(core.core, size)
    if not isinstance(core, WindowedAttention):
        return ()
    window = WindowLayout(size, None, core.window_size, core.shifted).window
    return () if window == size else (window,)


def _bare(key: str) -> str:
    return re.sub(r"^(cores\.\d+\.|core\.)+", "", key)


def _rebuild(own: nn.Module, name: str, dim: int, num_heads: int, size: Size) -> nn.Module:
    if isinstance(own, CrossShapedAttention):
        both = copy.deepcopy(own)
        both.cores = nn.ModuleList(_rebuild(half, name, dim // 2, num_heads // 2, size) for half in own.cores)
        return both
    if isinstance(own, LocallyEnhancedAttention):
        return LocallyEnhancedAttention(_rebuild(own.core, name, dim, num_heads, size), dim)
    if isinstance(own, WindowedAttention):
        window = WindowLayout(size, None, own.window_size, own.shifted).window
        inner = _rebuild(own.core, name, dim, num_heads, window)
        if isinstance(own, SwinWindowAttention) and isinstance(inner, SoftmaxAttention):
            return SwinWindowAttention(inner, num_heads, cast(int, own.window_size[0]), own.shifted)
        return WindowedAttention(inner, own.window_size, own.shifted)
    if isinstance(own, FocusedLinearAttention):
        kernel_size = 5 if own.dwc is None else own.dwc.kernel_size[0]
        return make_core(name, dim, num_heads, own.grid_size, kernel_size=kernel_size)
    return make_core(name, dim, num_heads, size)
