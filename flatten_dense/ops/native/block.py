"""The two halves of a transformer block by the C kernels, for inference in float32.

What a block of tokens needs, hidden channels, queries and keys, is made and used in the cache; of the size of the map
there are only the values and the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flatten_dense.ops.native.arguments import (
    LANES,
    TYPES,
    Affine,
    Encoding,
    around,
    call,
    inverse_scale,
    linear,
    norm,
    pointer,
    rows,
    shape,
    table,
)
from flatten_dense.ops.native.attention import Sums, supports
from flatten_dense.ops.native.build import library
from flatten_dense.ops.native.depthwise import KERNEL_SIZES


def takes_layers(x: Tensor, *layers: nn.Module) -> bool:
    """Whether the kernels take tokens ``[B, N, C]``, of float32 or bfloat16, and these layers as they are.

    Layers of another class, or with weights of another kind than plain float32 tensors, are not for us: something may
    have replaced them on purpose.
    """
    weights: list[nn.Parameter] = []
    for layer in layers:
        if type(layer) not in (nn.Linear, nn.LayerNorm, nn.Conv2d):
            return False
        weights += layer.parameters()
    return (
        all(each.device.type == "cpu" and each.dtype == torch.float32 for each in weights)
        and all(type(each) is nn.Parameter and each.is_contiguous() for each in weights)
        and len(weights) == 2 * len(layers)  # each has weight and bias
        and x.device.type == "cpu"
        and x.dtype in TYPES
        and type(x) is Tensor
        and x.stride(2) == 1
        and x.shape[2] % LANES == 0
        and x.numel() > 0
        and library() is not None
    )


def takes_mlp(x: Tensor, layer_norm: nn.Module, fc1: nn.Linear, fc2: nn.Linear, *convolution: nn.Conv2d) -> bool:
    """Whether :func:`add_mlp` takes these, and perhaps a convolution between them."""
    return takes_layers(x, layer_norm, fc1, fc2, *convolution) and fc1.out_features % LANES == 0 and x.is_contiguous()


def takes_attention(x: Tensor, kernels: Tensor, num_heads: int, focusing_factor: float) -> bool:
    """Whether :func:`attend` takes these, beside its layers."""
    return supports(x, num_heads, focusing_factor) and kernels.shape[-1] in KERNEL_SIZES


def add_mlp(x: Tensor, layer_norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """Do ``x += fc2(gelu(fc1(layer_norm(x))))`` in place.

    Args:
        x: ``[B, N, C]``, dense.
        layer_norm: over C.
        fc1: C to hidden channels, a multiple of 16.
        fc2: hidden channels to C.

    Returns:
        ``x``.
    """
    (batch, tokens, channels), threads = x.shape, torch.get_num_threads()
    layers = [linear(Affine(layer.weight, layer.bias)) for layer in (fc1, fc2)]
    at = pointer(x)
    call("mlp_add", at, channels, batch * tokens, norm(layer_norm), *layers, at, channels, threads)
    return x


def add_conv_mlp(
    x: Tensor,
    size: Sequence[int],
    layer_norm: nn.LayerNorm,
    fc1: nn.Linear,
    convolution: nn.Conv2d,
    fc2: nn.Linear,
    relu: bool,
) -> Tensor:
    """``x + fc2(gelu(convolution(fc1(layer_norm(x)))))``.

    Args:
        x: ``[B, H * W, C]``, dense; left as it is.
        size: (H, W).
        layer_norm: over C.
        fc1: C to hidden channels, a multiple of 16.
        convolution: depth-wise, ``[hidden, 1, 3, 3]``.
        fc2: hidden channels to C.
        relu: a ReLU follows ``fc1``.

    Returns:
        ``[B, H * W, C]``.
    """
    expand, contract = (linear(Affine(layer.weight, layer.bias)) for layer in (fc1, fc2))
    out = torch.empty_like(x)
    at, threads = pointer(out), torch.get_num_threads()
    kernels = pointer(convolution.weight), pointer(convolution.bias)
    call("conv_mlp_add", pointer(x), x.shape[0], *size, norm(layer_norm), expand, *kernels, contract, relu, at, threads)
    return out


def attend(
    x: Tensor,
    layer_norm: nn.LayerNorm | None,
    qkv: Sequence[Affine],
    proj: Affine,
    convolution: Affine,
    scale: Tensor,
    encoding: Encoding,
    num_heads: int,
    focusing_factor: float,
    residual: bool,
) -> Tensor:
    """Focused linear attention of a map with everything around it.

    With ``y = layer_norm(x)``: ``proj(attention(to_q(y), to_k(y), to_v(y)) + convolution(to_v(y)))``, and ``x`` if
    ``residual``.

    Args:
        x: ``[B, N, C]``; left as it is.
        layer_norm: over C; None for none.
        qkv: projections from C to C.
        proj: from C to C.
        convolution: depth-wise, of the values; weight ``[D, 1, k, k]``, k = 3 or 5, and bias ``[D]``. Channel c uses
            kernel c % D.
        scale: ``[1, 1, C]`` before the softplus.
        encoding: added to the keys; its ``size`` is that of the map.
        num_heads: G.
        focusing_factor: a whole number from 1 to 8.
        residual: add ``x``.

    Returns:
        ``[B, N, C]``.
    """
    batch, tokens, channels = x.shape
    inv_scale = inverse_scale(scale)
    own, before = shape(x, num_heads, focusing_factor, inv_scale), norm(layer_norm)
    to_q, to_k, to_v = map(linear, qkv)
    values, out = x.new_empty(x.shape), x.new_empty(x.shape)
    sums = Sums.zeros(batch, num_heads, channels // num_heads)
    call("attention_block_keys", own, rows(x), before, to_k, to_v, table(encoding), rows(values), *map(pointer, sums))
    means = sums.over(tokens)
    after = around(convolution, encoding.size, residual)
    call(
        "attention_block_queries",
        own,
        rows(x),
        before,
        to_q,
        linear(proj),
        rows(values),
        *map(pointer, means),
        after,
        rows(out),
    )
    return out
