"""Depth-wise convolution of token maps, as an operator that compile and FLOP counters see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from flatten_dense.ops.half_precision import FLOAT16_MAX, widen
from flatten_dense.ops.native import depthwise
from flatten_dense.ops.plain import full_precision
from flatten_dense.ops.tracing import needs_composite

_SCHEMA = "(Tensor x, Tensor weight, Tensor bias, SymInt height, SymInt width) -> Tensor"
_BACKWARD_SCHEMA = (
    "(Tensor grad, Tensor x, Tensor weight, SymInt height, SymInt width, bool wants_x, bool wants_weight) "
    "-> (Tensor, Tensor, Tensor)"
)


def depthwise_convolution(x: Tensor, size: tuple[int, int], weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel of a map of tokens with its own kernel, stride 1, zeros around the map.

    Sums are in float32 or wider, whatever autocast says; float16 saturates instead of overflowing. On the CPU, float32
    and bfloat16 run in the C kernel where there is one, 5 to 25 times faster than PyTorch's own grouped convolution.

    Args:
        x: ``[B, H * W, C]``, any float type and strides; views with dense channels, as a chunk of a fused projection,
            are not copied.
        size: (H, W), row-major.
        weight: ``[D, 1, k, k]``, k odd, D a divisor of C: channel c uses kernel c % D.
        bias: ``[D]``.

    Returns:
        ``[B, H * W, C]`` in the type of ``x``.
    """
    if (
        x.device.type == "cpu"
        and x.dtype in depthwise.DTYPES
        and x.shape[2] % depthwise.CHANNEL_MULTIPLE == 0
        and weight.shape[-1] in depthwise.KERNEL_SIZES
        and not needs_composite()
    ):
        out: Tensor = torch.ops.flatten_dense.depthwise_convolution(x, widen(weight), widen(bias), *size)
        return out
    return _plain(x, size, weight, bias)


def _plain(x: Tensor, size: Sequence[int], weight: Tensor, bias: Tensor) -> Tensor:
    """The same by PyTorch's grouped convolution, for every device and type."""
    dtype = x.dtype
    batch, _, channels = x.shape
    with full_precision(x.device):
        if dtype == torch.float16:
            x = widen(x)
        weight, bias = widen(weight).to(x.dtype), widen(bias).to(x.dtype)
        repeats = channels // weight.shape[0]
        maps = x.reshape(batch, *size, channels).permute(0, 3, 1, 2)  # a view, channels-last
        out = F.conv2d(
            maps, weight.repeat(repeats, 1, 1, 1), bias.repeat(repeats), padding=weight.shape[-1] // 2, groups=channels
        )
        if dtype == torch.float16:
            out = out.clamp(-FLOAT16_MAX, FLOAT16_MAX)
    return out.to(dtype).flatten(2).transpose(1, 2)


def _forward(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    if depthwise.supports(x, weight):
        return depthwise.forward(x, (height, width), weight, bias)
    return _plain(x, (height, width), weight, bias).contiguous()


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty(x.shape)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, height: int, width: int, wants_x: bool, wants_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    size = (height, width)
    if not depthwise.supports(x, weight):
        grads = _plain_backward(grad, x, size, weight, wants_x, wants_weight)
        return grads[0].contiguous(), grads[1], grads[2]
    grad_x, grad_weight, grad_bias = _unwanted(x), _unwanted(weight), _unwanted(weight)
    if wants_x:
        grad_x = depthwise.input_gradient(grad, size, weight)
    if wants_weight:
        grad_weight, grad_bias = depthwise.weight_gradient(grad, x, size, weight)
    return grad_x, grad_weight, grad_bias


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, height: int, width: int, wants_x: bool, wants_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = x.new_empty(x.shape) if wants_x else _unwanted(x)
    if not wants_weight:
        return grad_x, _unwanted(weight), _unwanted(weight)
    return grad_x, weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])


def _unwanted(like: Tensor) -> Tensor:
    return like.new_empty(0)


def _plain_backward(
    grad: Tensor, x: Tensor, size: Sequence[int], weight: Tensor, wants_x: bool, wants_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias by PyTorch's own function, which is differentiable once more."""
    (batch, _, channels), (kernels, _, k, _) = x.shape, weight.shape
    grad_maps, maps = (tokens.reshape(batch, *size, channels).permute(0, 3, 1, 2) for tokens in (grad, x))
    repeated = weight.to(x.dtype).repeat(channels // kernels, 1, 1, 1)
    mask, padding = [wants_x, wants_weight, wants_weight], [k // 2, k // 2]
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad_maps, maps, repeated, [channels], [1, 1], padding, [1, 1], False, [0, 0], channels, mask
    )
    grad_x = grad_x.flatten(2).transpose(1, 2) if wants_x else _unwanted(x)
    if not wants_weight:
        return grad_x, _unwanted(weight), _unwanted(weight)
    grad_weight = grad_weight.to(weight.dtype).view(-1, *weight.shape).sum(0)
    grad_bias = grad_bias.to(weight.dtype).view(-1, kernels).sum(0)
    return grad_x, grad_weight, grad_bias


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    x, weight, _, height, width = inputs
    ctx.save_for_backward(x, weight)
    ctx.size = (height, width)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    x, weight = ctx.saved_tensors
    wants_x, wants_weight = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
    if torch.is_grad_enabled():  # a derivative of this one is wanted
        grads = _plain_backward(grad, x, ctx.size, weight, wants_x, wants_weight)
    else:
        operator = torch.ops.flatten_dense.depthwise_convolution_backward
        grads = operator(grad, x, weight, *ctx.size, wants_x, wants_weight)
    grad_x, grad_weight, grad_bias = grads
    return (
        grad_x if wants_x else None,
        grad_weight if ctx.needs_input_grad[1] else None,
        grad_bias if ctx.needs_input_grad[2] else None,
        None,
        None,
    )


for _name, _schema, _kernel, _fake in (
    ("flatten_dense::depthwise_convolution", _SCHEMA, _forward, _fake_forward),
    ("flatten_dense::depthwise_convolution_backward", _BACKWARD_SCHEMA, _backward, _fake_backward),
):
    torch.library.define(_name, _schema)
    torch.library.impl(_name, "cpu", _kernel)
    torch.library.register_fake(_name, _fake)
torch.library.register_autograd(
    "flatten_dense::depthwise_convolution", _differentiate, setup_context=_save_for_backward
)


# Both count what PyTorch counts for the same grouped convolution; that of the weight's gradient, times the channels,
# ignores the groups.
@register_flop_formula(torch.ops.flatten_dense.depthwise_convolution)
def _forward_flops(
    x_shape: Sequence[int], weight_shape: Sequence[int], *args: object, out_shape: object = None, **kwargs: object
) -> int:
    batch, num_tokens, channels = x_shape
    map_shape, kernel_shape = [batch, channels, num_tokens], [channels, *weight_shape[1:]]
    return conv_flop_count(map_shape, kernel_shape, map_shape)


@register_flop_formula(torch.ops.flatten_dense.depthwise_convolution_backward)
def _backward_flops(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    height: int,
    width: int,
    wants_x: bool,
    wants_weight: bool,
    *args: object,
    out_shape: object = None,
    **kwargs: object,
) -> int:
    forward = _forward_flops(x_shape, weight_shape)
    return forward * wants_x + forward * x_shape[2] * wants_weight
