"""Attention and everything around it with matrix products in bfloat16, as under autocast: the products are PyTorch's.

Pieces of queries and keys are made and used in the cache; of the size of the map there are the values and the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flatten_dense.ops.native import depthwise
from flatten_dense.ops.native.arguments import Affine, Encoding, inverse_scale
from flatten_dense.ops.native.attention import Sums, add_keys, answer_queries
from flatten_dense.ops.native.pieces import add_rows, add_to_each, normalise


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
    rows: int,
) -> Tensor:
    """As :func:`flatten_dense.ops.native.block.attend`, but for its products.

    Args:
        x: ``[B, N, C]``, float32 or bfloat16; left as it is.
        layer_norm: as there, and so all that follow.
        qkv: three.
        proj: from C to C.
        convolution: of the values.
        scale: ``[1, 1, C]``.
        encoding: of the keys.
        num_heads: G.
        focusing_factor: a whole number from 1 to 8.
        residual: add ``x``.
        rows: tokens to take at a time, at least one row of the map.

    Returns:
        ``[B, N, C]``, in the type of ``x`` if ``residual``, else bfloat16.
    """
    x, (_, tokens, channels), (height, width) = x.contiguous(), x.shape, encoding.size
    to_q, to_k, to_v, back = (_Product(layer) for layer in (*qkv, proj))
    inv_scale = inverse_scale(scale)
    most = max(1, rows // width)  # rows of the map
    narrow, projected, answer = (x.new_empty(most * width, channels, dtype=torch.bfloat16) for _ in range(3))
    values = x.new_empty(1, tokens, channels, dtype=torch.bfloat16)
    out = torch.empty_like(x, dtype=x.dtype if residual else torch.bfloat16)
    for image, result in zip(x, out, strict=True):
        sums = Sums.zeros(1, num_heads, channels // num_heads)
        for first in range(0, height, most):
            piece = slice(first * width, min(first + most, height) * width)
            size = image[piece].shape[0]
            y, k = narrow[:size], projected[:size]
            normalise(image[piece], layer_norm, y)
            to_k(y, k)
            to_v(y, values[0, piece])
            add_keys(
                sums, k[None], values[:, piece], inv_scale, encoding._replace(first_token=piece.start), focusing_factor
            )
        means = sums.over(tokens)
        for first in range(0, height, most):
            last = min(first + most, height)
            piece = slice(first * width, last * width)
            size = image[piece].shape[0]
            y, q, a = narrow[:size], projected[:size], answer[:size]
            depthwise.forward_rows(values, encoding.size, *convolution, a[None], first, last)
            normalise(image[piece], layer_norm, y)
            to_q(y, q)
            answer_queries(q[None], means, inv_scale, focusing_factor, a[None], add=True)
            if residual:
                torch.mm(a, back.matrix, out=y)
                result[piece] = image[piece]
                add_rows(result[piece], y, back.bias)
            else:
                back(a, result[piece])
    return out


class _Product:
    def __init__(self, layer: Affine) -> None:
        self.matrix, self.bias = layer.weight.detach().to(torch.bfloat16).t(), layer.bias

    def __call__(self, x: Tensor, out: Tensor) -> None:
        torch.mm(x, self.matrix, out=out)
        add_to_each(out, self.bias)
