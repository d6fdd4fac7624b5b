"""The MLPs of blocks with matrix products in bfloat16, as under autocast: the products are PyTorch's.

Those use the processor's matrix units. What lies between them is made by C kernels while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from flatten_dense.ops.bands import bands
from flatten_dense.ops.native import depthwise
from flatten_dense.ops.native.arguments import TYPES, call, norm, pointer

_NOTHING, _RELU, _GELU = range(3)


def add_mlp(x: Tensor, layer_norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear, rows: int) -> Tensor:
    """Do ``x += fc2(gelu(fc1(layer_norm(x))))`` in place, with products of bfloat16.

    Args:
        x: ``[B, N, C]``, float32 or bfloat16, dense.
        layer_norm: over C, a multiple of 16.
        fc1: C to hidden channels, a multiple of 16.
        fc2: hidden channels to C.
        rows: tokens to take at a time.

    Returns:
        ``x``.
    """
    expand, contract = _matrix(fc1), _matrix(fc2)
    tokens = x.flatten(0, 1)
    most = min(rows, tokens.shape[0])
    narrow, hidden = (x.new_empty(most, width, dtype=torch.bfloat16) for width in expand.shape)
    for piece in torch.split(tokens, most):
        y, h = narrow[: piece.shape[0]], hidden[: piece.shape[0]]
        normalise(piece, layer_norm, y)
        torch.mm(y, expand, out=h)
        _activate(h, fc1.bias, _GELU)
        torch.mm(h, contract, out=y)
        add_rows(piece, y, fc2.bias)
    return x


def add_conv_mlp(
    x: Tensor,
    size: Sequence[int],
    layer_norm: nn.LayerNorm,
    fc1: nn.Linear,
    convolution: nn.Conv2d,
    fc2: nn.Linear,
    relu: bool,
    rows: int,
) -> Tensor:
    """Do ``x += fc2(gelu(convolution(fc1(layer_norm(x)))))`` in place, with products of bfloat16.

    Args:
        x: ``[B, H * W, C]``, float32 or bfloat16, dense.
        size: (H, W).
        layer_norm: over C, a multiple of 16.
        fc1: C to hidden channels, a multiple of 16.
        convolution: depth-wise, ``[hidden, 1, 3, 3]``.
        fc2: hidden channels to C.
        relu: a ReLU follows ``fc1``.
        rows: of the map, to take at a time.

    Returns:
        ``x``.
    """
    (height, width), expand, contract = size, _matrix(fc1), _matrix(fc2)
    weight, conv_bias = convolution.weight, cast(Tensor, convolution.bias)
    most = min(rows, height)
    narrow = x.new_empty((most + 1) * width, expand.shape[0], dtype=torch.bfloat16)
    hidden, convolved = (x.new_empty(most + 2, width, expand.shape[1], dtype=torch.bfloat16) for _ in range(2))
    for maps in x.view(x.shape[0], *size, -1):
        for band in bands(height, most):
            at_hand = band.above + band.stop - band.start
            piece, h = maps[band.start : band.stop].flatten(0, 1), hidden[band.above : at_hand].flatten(0, 1)
            y = narrow[: piece.shape[0]]
            normalise(piece, layer_norm, y)
            torch.mm(y, expand, out=h)
            _activate(h, fc1.bias, _RELU if relu else _NOTHING)
            first, last = band.result
            out, whole = convolved[first:last].view(1, -1, h.shape[1]), hidden[:at_hand].view(1, -1, h.shape[1])
            depthwise.forward_rows(whole, (at_hand, width), weight, conv_bias, out, first, last)
            _activate(out[0], None, _GELU)
            y = narrow[: out.shape[1]]
            torch.mm(out[0], contract, out=y)
            add_rows(maps[band.done : band.ready].flatten(0, 1), y, fc2.bias)
            hidden[: min(at_hand, 2)] = hidden[max(at_hand - 2, 0) : at_hand].clone()
    return x


def _matrix(layer: nn.Linear) -> Tensor:
    return layer.weight.detach().to(torch.bfloat16).t()


def normalise(x: Tensor, layer_norm: nn.LayerNorm | None, out: Tensor) -> None:
    """Write ``layer_norm(x)``, or ``x`` where there is none, into ``out``; ``[n, C]``, dense, ``out`` in bfloat16."""
    threads = torch.get_num_threads()
    call("piece_normalise", pointer(x), TYPES[x.dtype], *x.shape, norm(layer_norm), pointer(out), threads)


def add_rows(x: Tensor, y: Tensor, bias: Tensor) -> None:
    """Do ``x += y + bias``; ``[n, C]``, dense, ``y`` in bfloat16."""
    threads = torch.get_num_threads()
    call("piece_add", pointer(x), TYPES[x.dtype], *x.shape, pointer(y), pointer(bias), threads)


def add_to_each(h: Tensor, bias: Tensor) -> None:
    """Do ``h += bias`` for rows ``[n, C]`` in bfloat16, dense."""
    _activate(h, bias, _NOTHING)


def _activate(h: Tensor, bias: Tensor | None, activation: int) -> None:
    call("piece_activate", pointer(h), *h.shape, pointer(bias), activation, torch.get_num_threads())
