"""The form in chunks, forward and backward.

Keys and values are read once, for the state phi(K)^T V and the mean key; queries once, against that state. Beside the
outputs there is never a whole map of anything. The backward pass does the same from q, k, v and the state.

The feature map is phi = r y^p with one number r per token. So a key's r can go to its value, and a query's out of the
product altogether, into the 1e-6 of the normaliser: p S / (p . m + 1e-6 / r).
"""

from __future__ import annotations

import torch
from torch import Tensor

from flatten_dense.ops.half_precision import narrow
from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.plain import EPS, full_precision
from flatten_dense.ops.streaming.chunks import Keys, chunks
from flatten_dense.ops.streaming.focus import Focus


def supports(q: Tensor, num_heads: int, focusing_factor: float) -> bool:
    """True: it takes whatever the operator takes."""
    return True


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Output and context of the operator."""
    q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, num_heads, focusing_factor = inputs
    with full_precision(q.device):
        focus = Focus(scale, focusing_factor, torch.promote_types(q.dtype, torch.float32))
        keys = Keys(focus, k, v, encoding, key_padding_mask, encoding_size, kv_size)
        (batch, _, channels), head_dim = q.shape, q.shape[2] // num_heads
        state = focus.inverse.new_zeros(batch, num_heads, head_dim, head_dim)
        mean_key = focus.inverse.new_zeros(batch, channels, 1)
        for chunk in keys.chunks():
            rows, images = keys.rows(chunk), chunk[0]
            _add_product(state[images], _heads(rows.powered, num_heads), _heads(keys.values(rows, chunk), num_heads))
            mean_key[images].baddbmm_(rows.powered.mT, rows.ratio)
        state /= keys.count
        mean_key = mean_key.view(batch, num_heads, head_dim, 1) / keys.count
        per_head = _block_diagonal(mean_key)
        out = q.new_empty(q.shape)
        for chunk in chunks(q):
            rows, images = focus.rows(focus.prepare(q[chunk])), chunk[0]
            normaliser = torch.baddbmm(EPS / rows.ratio, rows.powered, per_head[images]).unsqueeze(-1)
            target = out[chunk] if out.dtype == focus.dtype else torch.empty_like(rows.y)
            _product(_heads(rows.powered, num_heads), state[images], _heads(target, num_heads))
            _heads(target, num_heads).div_(normaliser)
            if out.dtype != focus.dtype:
                out[chunk] = narrow(target, out.dtype)
        return out, torch.cat([state, mean_key], -1)


def backward(grad: Tensor, inputs: Inputs, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, scale and encoding."""
    q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, _, focusing_factor = inputs
    with full_precision(q.device):
        focus = Focus(scale, focusing_factor, context.dtype)
        keys = Keys(focus, k, v, encoding, key_padding_mask, encoding_size, kv_size)
        dq, dcontext = _queries_backward(focus, grad, q, context)
        dk, dv, dencoding = _keys_backward(focus, keys, dcontext / keys.count)
        return dq, dk, dv, focus.scale_gradient(), narrow(dencoding, encoding.dtype)


def _queries_backward(focus: Focus, grad: Tensor, q: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the queries and of the context."""
    num_heads, state, mean_key = context.shape[1], context[..., :-1], context[..., -1:]
    per_head, transposed = _block_diagonal(mean_key), state.mT.contiguous()
    dstate, dper_head = torch.zeros_like(transposed), torch.zeros_like(per_head)
    dq = q.new_empty(q.shape)
    for chunk in chunks(q):
        rows, images = focus.rows(focus.prepare(q[chunk])), chunk[0]
        share = EPS / rows.ratio
        normaliser = torch.baddbmm(share, rows.powered, per_head[images])
        dsums = _heads(focus.widen(grad[chunk]), num_heads) / normaliser.unsqueeze(-1)
        dpowered = torch.empty_like(rows.powered)
        _product(dsums, transposed[images], _heads(dpowered, num_heads))
        _add_product(dstate[images], _heads(rows.powered, num_heads), dsums)
        dnormaliser = _heads(rows.powered * dpowered, num_heads).sum(-1) / -normaliser
        dper_head[images].baddbmm_(rows.powered.mT, dnormaliser)
        dpowered.baddbmm_(dnormaliser, per_head[images].mT)
        dratio = dnormaliser.sum(-1, keepdim=True) * -share / rows.ratio
        dq[chunk] = narrow(focus.backward(dpowered, dratio, rows), q.dtype)
    return dq, torch.cat([dstate, _diagonal(dper_head)], -1)


def _keys_backward(focus: Focus, keys: Keys, dsums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of keys, values and encoding from those of the context's sums."""
    num_heads, dstate = dsums.shape[1], dsums[..., :-1]
    transposed, dkeys = dstate.mT.contiguous(), dsums[..., -1].flatten(1).unsqueeze(1)
    dstate = dstate.contiguous()
    dk, dv = keys.k.new_empty(keys.k.shape), keys.v.new_empty(keys.v.shape)
    dencoding = torch.zeros_like(keys.encoding, dtype=focus.dtype)
    for chunk in keys.chunks():
        rows, images = keys.rows(chunk), chunk[0]
        dvalues, dpowered = torch.empty_like(rows.powered), torch.empty_like(rows.powered)
        _product(_heads(rows.powered, num_heads), dstate[images], _heads(dvalues, num_heads))
        dv[chunk] = narrow(dvalues.mul_(rows.ratio), dv.dtype)
        _product(_heads(focus.widen(keys.v[chunk]), num_heads), transposed[images], _heads(dpowered, num_heads))
        dpowered += dkeys[images]
        dratio = (dpowered * rows.powered).sum(-1, keepdim=True)
        dx = focus.backward(dpowered.mul_(rows.ratio), dratio, rows, keys.ignored(chunk))
        keys.add_encoding_gradient(dx, chunk, dencoding)
        dk[chunk] = narrow(dx, dk.dtype)
    return dk, dv, dencoding


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """View ``[b, n, C]`` as ``[b, n, G, D]``."""
    return x.view(*x.shape[:2], num_heads, -1)


def _product(x: Tensor, state: Tensor, out: Tensor) -> None:
    """Write ``[b, n, G, D] @ [b, G, D, E]`` to ``[b, n, G, E]``."""
    if x.shape[0] == 1:
        torch.bmm(x[0].transpose(0, 1), state[0], out=out[0].transpose(0, 1))
    else:
        out.copy_((x.transpose(1, 2) @ state).transpose(1, 2))


def _add_product(into: Tensor, x: Tensor, y: Tensor) -> None:
    """Add the sum over n of ``[b, n, G, D]`` times ``[b, n, G, E]`` to ``[b, G, D, E]``."""
    x, y = x.permute(0, 2, 3, 1), y.transpose(1, 2)
    if x.shape[0] == 1:
        into[0].baddbmm_(x[0], y[0])
    else:
        into += x @ y


def _block_diagonal(x: Tensor) -> Tensor:
    """``[B, G, D, 1]`` as ``[B, C, G]``, zero but for a head's own channels."""
    return torch.diag_embed(x.squeeze(-1).transpose(1, 2)).transpose(1, 2).flatten(1, 2)


def _diagonal(x: Tensor) -> Tensor:
    """The inverse of :func:`_block_diagonal`, whatever stands beside the blocks."""
    return x.reshape(x.shape[0], x.shape[2], -1, x.shape[2]).diagonal(dim1=1, dim2=3).transpose(1, 2).unsqueeze(-1)
