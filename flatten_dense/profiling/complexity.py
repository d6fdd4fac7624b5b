"""What a model costs, without running it: parameters, and multiply-accumulates of a forward pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, each counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, *input_shapes: Sequence[int]) -> int:
    """Multiply-accumulates of one forward pass in evaluation mode, what papers print as FLOPs.

    Counted are convolutions, linear layers and matrix products, those of attention included; norms, softmax and other
    elementwise work are not. Nothing is computed and no memory is taken: the pass runs on the meta device.

    Args:
        module: on any device, in either mode; it is left as it is. Its forward must not look at values.
        input_shapes: of each argument of its forward, ``(1, 3, 512, 2048)`` for one photo.
    """
    tensors = list(chain(module.parameters(), module.buffers()))
    # A memo tells deepcopy that the tensors are copied already, so it copies the structure alone.
    on_meta = copy.deepcopy(module, {id(tensor): tensor.detach().to("meta") for tensor in tensors}).eval()
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)
    inputs = [torch.empty(*shape, dtype=dtype, device="meta") for shape in input_shapes]
    # The counter does not know every fused attention kernel; as plain matrix products it sees all of them.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        on_meta(*inputs)
    macs: int = counter.get_total_flops() // 2
    return macs
