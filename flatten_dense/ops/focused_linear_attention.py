"""The focused linear attention operator, in the fastest form that the device at hand has.

``torch.ops.flatten_dense.focused_attention(q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size,
num_heads, focusing_factor) -> (out, context)`` and ``focused_attention_backward``. Compilers see one operator of known
shapes and cost; an exported graph gets the composite of plain functions instead, so that it runs anywhere.

The context ``[B, G, D, D + 1]`` is all that the queries see of keys and values: mean_j phi(k)_j v_j^T, and as its last
column mean_j phi(k)_j; float32, or float64 for float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from flatten_dense.ops.forms import choose_form, forced_form
from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.plain import plain_attention
from flatten_dense.ops.tracing import needs_composite

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor scale, Tensor encoding, Tensor? key_padding_mask, {}"
    "SymInt[] encoding_size, SymInt[] kv_size, int num_heads, float focusing_factor"
)
_FORWARD = "flatten_dense::focused_attention"
_BACKWARD = "flatten_dense::focused_attention_backward"
_FIVE = ", ".join(["Tensor"] * 5)


def focused_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    encoding_size: Sequence[int],
    kv_size: Sequence[int],
    num_heads: int,
    focusing_factor: float = 3,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Linear attention between focused queries and focused keys, at cost O((N + M) C D).

    Per head phi(q) (mean_j phi(k + encoding)_j v_j^T) / (phi(q) . mean_j phi(k + encoding)_j + 1e-6), where phi is
    :func:`flatten_dense.ops.plain.focused_feature_map`. Sums are taken in float32 or wider. Differentiable in the first
    five arguments any number of times.

    Args:
        q: ``[B, N, C]``, any float type; here and below only the last dimension need be dense.
        k: ``[B, M, C]`` of the same type.
        v: ``[B, M, C]`` of the same type.
        scale: ``[1, 1, C]``, before the softplus.
        encoding: added to the keys, ``[E, h * w, C]``, E = 1 or B; stretched bilinearly to ``kv_size``, if E = 1.
        encoding_size: (h, w), the encoding's own grid.
        kv_size: (H, W) of the keys, H * W = M, row-major.
        num_heads: G, a divisor of C.
        focusing_factor: the power in phi.
        key_padding_mask: ``[B, M]`` bool, True = ignore that key. A row that ignores every key gives zeros.

    Returns:
        ``[B, N, C]`` in the type of ``q``; float16 saturates at 65504, and so do its gradients.

    Raises:
        ValueError: if shapes or types do not fit each other, or ``attention_form`` demands a form that cannot take
            these tensors.

    Source: arXiv 2308.00442, section 4.2; norms over all channels and the 1e-6 as in the released code.
    """
    if forced_form() == "plain" or needs_composite():
        return plain_attention(
            q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, num_heads, focusing_factor
        )
    if not torch.compiler.is_compiling():
        _check(q, k, v, scale, encoding, encoding_size, kv_size, num_heads, key_padding_mask)
    arguments = (q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, num_heads, float(focusing_factor))
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return cast(Tensor, _Attention.apply(*arguments))
    return cast(Tensor, torch.ops.flatten_dense.focused_attention(*arguments)[0])


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    encoding_size: Sequence[int],
    kv_size: Sequence[int],
    num_heads: int,
    key_padding_mask: Tensor | None,
) -> None:
    """Refuse what does not fit together: kernels trust what they are given."""
    (batch, _, channels), keys, rows = q.shape, kv_size[0] * kv_size[1], encoding_size[0] * encoding_size[1]
    if k.shape != (batch, keys, channels) or v.shape != k.shape or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"k and v must be [{batch}, {keys}, {channels}] {q.dtype}, as q and kv_size {tuple(kv_size)} say; got "
            f"{tuple(k.shape)} {k.dtype} and {tuple(v.shape)} {v.dtype}"
        )
    if scale.numel() != channels or channels % num_heads:
        raise ValueError(
            f"scale must be [1, 1, {channels}] and num_heads divide {channels}; got {tuple(scale.shape)}, {num_heads}"
        )
    images = (1,) if tuple(encoding_size) != tuple(kv_size) else (1, batch)
    if encoding.shape[0] not in images or encoding.shape[1:] != (rows, channels):
        raise ValueError(
            f"encoding must be [{' or '.join(map(str, images))}, {rows}, {channels}], as encoding_size "
            f"{tuple(encoding_size)} says; got {tuple(encoding.shape)}"
        )
    if key_padding_mask is not None and (
        key_padding_mask.shape != (batch, keys) or key_padding_mask.dtype != torch.bool
    ):
        raise ValueError(
            f"key_padding_mask must be [{batch}, {keys}] bool; got {tuple(key_padding_mask.shape)} "
            f"{key_padding_mask.dtype}"
        )


class _Attention(torch.autograd.Function):
    """The operator with its gradient. That which torch.library adds, for compilers, takes longer at each call."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:  # noqa: ANN401
        output: tuple[Tensor, Tensor] = torch.ops.flatten_dense.focused_attention(*arguments)
        _save(ctx, arguments, output)
        return output[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return _differentiate(ctx, grad)


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    inputs = Inputs(*_dense(arguments))
    return choose_form(inputs.q, inputs.num_heads, inputs.focusing_factor).forward(inputs)


def _backward(*arguments: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
    grad, q, k, v, scale, encoding, mask, context, *options = _dense(arguments)
    inputs = Inputs(q, k, v, scale, encoding, mask, *options)
    gradients = choose_form(q, inputs.num_heads, inputs.focusing_factor).backward(grad, inputs, context)
    return tuple(x.contiguous() for x in gradients)  # as compilers are told


def _dense(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """As the forms expect tensors: with a dense last dimension."""
    return tuple(x.contiguous() if isinstance(x, Tensor) and x.stride(-1) != 1 else x for x in arguments)


def _fake_forward(q: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    head_dim = q.shape[2] // arguments[-2]
    dtype = torch.promote_types(q.dtype, torch.float32)
    return q.new_empty(q.shape), q.new_empty(q.shape[0], arguments[-2], head_dim, head_dim + 1, dtype=dtype)


def _fake_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:  # noqa: ANN401
    return tuple(x.new_empty(x.shape) for x in arguments[:5])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
    ctx.save_for_backward(*inputs[:6], output[1])
    ctx.options = inputs[6:]


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None = None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    *inputs, context = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph: someone will differentiate this, and only the composite can be
        wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
        out = plain_attention(*inputs, *ctx.options)
        gradients = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
        return tuple(next(gradients) if needed else None for needed in ctx.needs_input_grad)
    gradients = torch.ops.flatten_dense.focused_attention_backward(grad, *inputs, context, *ctx.options)
    return *gradients, *[None] * 5


torch.library.define(_FORWARD, f"({_ARGUMENTS.format('')}) -> (Tensor, Tensor)")
torch.library.define(
    _BACKWARD, f"(Tensor grad, {_ARGUMENTS.format('Tensor context, ')}) -> ({', '.join(['Tensor'] * 5)})"
)
torch.library.impl(_FORWARD, "default", _forward)
torch.library.impl(_BACKWARD, "default", _backward)
torch.library.register_fake(_FORWARD, _fake_forward)
torch.library.register_fake(_BACKWARD, _fake_backward)
torch.library.register_autograd(_FORWARD, _differentiate, setup_context=_save)


@register_flop_formula(torch.ops.flatten_dense.focused_attention)
def _forward_flops(q: Sequence[int], k: Sequence[int], *arguments: Any, **_: Any) -> int:  # noqa: ANN401
    """Of the three products with the state: phi(K)^T V, phi(Q) with that, and phi(Q) with the mean key."""
    batch, queries, channels = q
    head_dim = channels // arguments[-2]
    flops: int = 2 * batch * channels * (k[1] * head_dim + queries * head_dim + queries)
    return flops


@register_flop_formula(torch.ops.flatten_dense.focused_attention_backward)
def _backward_flops(grad: Sequence[int], *arguments: Any, **_: Any) -> int:  # noqa: ANN401
    """Two products for every one of the forward pass."""
    return 2 * _forward_flops(*arguments)
