"""Working through tokens piece by piece where no gradient is wanted, so that no wide map of hidden channels exists."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flatten_dense.ops.tracing import needs_composite

# Measured: enough work for every core, and little enough to stay in its cache and in memory that the allocator reuses.
PIECE_ON_CPU = 2**21
PIECE_PER_THREAD = 2**18
PIECE_ELSEWHERE = 2**27  # a graphics card wants large pieces; this only bounds the memory


def may_stream(module: nn.Module) -> bool:
    """Whether a module may work piece by piece and overwrite what it made itself.

    That is so at inference, unless the program is being recorded or counted, or someone looks at the parts through
    hooks, or has put another ``forward`` on one: those would see pieces, or nothing.
    """
    if torch.is_grad_enabled() or module.training:
        return False
    if torch.compiler.is_compiling() or needs_composite() or torch._C._len_torch_dispatch_stack():
        return False
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return False
    return not any(
        part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__ for part in module.modules()
    )


def computes_as(module: nn.Module, *classes: type[nn.Module]) -> bool:
    """Whether a module is of one of these classes, or of a subclass that computes the same."""
    return any(isinstance(module, each) and type(module).forward is each.forward for each in classes)


def rows_per_piece(hidden_channels: int, device: torch.device) -> int:
    """Rows of a piece, of which each takes so many hidden channels."""
    elements = PIECE_ELSEWHERE
    if device.type == "cpu":
        elements = max(PIECE_ON_CPU, PIECE_PER_THREAD * torch.get_num_threads())
    return max(1, elements // hidden_channels)


def add_over(own: Tensor, x: Tensor) -> Tensor:
    """``own + x``, contiguous, in the memory of ``own`` where the sum has its type and layout."""
    if own.is_contiguous() and own.dtype == torch.promote_types(own.dtype, x.dtype):
        return own.add_(x)
    return (own + x).contiguous()


def product_type(x: Tensor) -> torch.dtype:
    """The type in which matrix products with ``x`` are made here: its own, or what autocast says."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
