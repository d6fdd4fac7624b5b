"""Focused linear attention in chunks of tokens that fit the processor's cache: any device, any type, no compiler.

Keys and values are read once, for the state phi(K)^T V and the mean key; queries once, against that state. Beside the
outputs there is never a whole map of anything. The backward pass does the same from q, k, v and the state.

With y = (ReLU(x) + 1e-6) / softplus(scale) the feature map is phi = r y^p, r = |y| / |y^p| one number per token. So a
key's r can go to its value, and a query's out of the product altogether, into the 1e-6 of the normaliser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.ops.half_precision import narrow
from flatten_dense.ops.plain import EPS, at_least_float32, full_precision
from flatten_dense.ops.table_resizing import BandResizer

CHUNK = 2**18  # numbers in a chunk: 1 MiB of float32

Part = tuple[slice, slice]  # of a batch: images, tokens


def supports(q: Tensor, num_heads: int, focusing_factor: float) -> bool:
    """True: it takes whatever the operator takes."""
    return True


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    key_padding_mask: Tensor | None,
    encoding_size: Sequence[int],
    kv_size: Sequence[int],
    num_heads: int,
    focusing_factor: float,
) -> tuple[Tensor, Tensor]:
    """Output and context of the operator."""
    with full_precision(q.device):
        focus = _Focus(scale, focusing_factor)
        keys = _Keys(k, v, encoding, key_padding_mask, encoding_size, kv_size)
        head_dim = q.shape[2] // num_heads
        context = scale.new_zeros(q.shape[0], num_heads, head_dim, head_dim + 1, dtype=focus.dtype)
        for part in keys.parts():
            x, values = keys.load(part)
            rows = focus(x)
            ratio = keys.clear(rows.ratio, part)
            context[part[0]] += _state(rows.powered, values * ratio, ratio, num_heads)
        context /= keys.count
        out = q.new_empty(q.shape)
        for part in _parts(q):
            rows = focus(at_least_float32(q[part]))
            sums = _split(rows.powered, num_heads) @ context[part[0]]
            attended = sums[..., :-1] / (sums[..., -1:] + EPS / rows.ratio.unsqueeze(1))
            out[part] = narrow(_merge(attended), q.dtype)
        return out, context


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    key_padding_mask: Tensor | None,
    context: Tensor,
    encoding_size: Sequence[int],
    kv_size: Sequence[int],
    num_heads: int,
    focusing_factor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, scale and encoding."""
    with full_precision(q.device):
        focus = _Focus(scale, focusing_factor)
        state, mean_key = context[..., :-1], context[..., -1:]
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        dcontext = torch.zeros_like(context)
        for part in _parts(q):
            x = at_least_float32(q[part])
            rows = focus(x)
            phi = _split(rows.powered * rows.ratio, num_heads)
            normaliser = phi @ mean_key[part[0]] + EPS
            dsums = _split(at_least_float32(grad[part]), num_heads) / normaliser
            dphi = dsums @ state[part[0]].mT
            dnormaliser = (phi * dphi).sum(-1, keepdim=True) / -normaliser
            dcontext[part[0]] += phi.mT @ torch.cat([dsums, dnormaliser], -1)
            dphi += dnormaliser * mean_key[part[0]].mT
            dq[part] = narrow(focus.backward(_merge(dphi), x, rows), q.dtype)
        keys = _Keys(k, v, encoding, key_padding_mask, encoding_size, kv_size)
        dcontext /= keys.count
        dstate, dmean_key = dcontext[..., :-1], dcontext[..., -1:]
        dencoding = torch.zeros_like(encoding, dtype=focus.dtype)
        for part in keys.parts():
            x, values = keys.load(part)
            rows = focus(x)
            phi = _split(keys.clear(rows.powered * rows.ratio, part), num_heads)
            dv[part] = narrow(_merge(phi @ dstate[part[0]]), v.dtype)
            dphi = _split(values, num_heads) @ dstate[part[0]].mT + dmean_key[part[0]].mT
            dx = focus.backward(keys.clear(_merge(dphi), part), x, rows)
            keys.add_encoding_gradient(dx, part, dencoding)
            dk[part] = narrow(dx, k.dtype)
        return dq, dk, dv, focus.scale_gradient(), narrow(dencoding, encoding.dtype)


class _Rows(NamedTuple):
    """The feature map r y^p of some tokens, in its parts."""

    largest: Tensor  # of the row; y and y^p are for the row divided by it, so that no power overflows or vanishes
    y: Tensor
    powered: Tensor
    length: Tensor
    powered_length: Tensor
    ratio: Tensor  # r, with the largest put back


class _Focus:
    """The focused feature map and its gradient, on tokens ``[b, n, C]``."""

    def __init__(self, scale: Tensor, focusing_factor: float) -> None:
        self.scale = scale
        self.dtype = torch.promote_types(scale.dtype, torch.float32)
        self.inverse = F.softplus(scale.to(self.dtype)).reciprocal()
        self.focusing_factor = focusing_factor
        self.sums = torch.zeros_like(self.inverse)

    def __call__(self, x: Tensor) -> _Rows:
        y = (F.relu(x) + EPS) * self.inverse
        largest = y.amax(-1, keepdim=True)
        y /= largest
        powered = _power(y, self.focusing_factor)
        length: Tensor = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        powered_length: Tensor = torch.linalg.vector_norm(powered, dim=-1, keepdim=True)
        return _Rows(largest, y, powered, length, powered_length, largest * length / powered_length)

    def backward(self, dphi: Tensor, x: Tensor, rows: _Rows) -> Tensor:
        """The gradient of x; that of the scale is summed up."""
        along = (dphi * rows.powered).sum(-1, keepdim=True) / rows.powered_length
        dpowered = (dphi - rows.powered * (along / rows.powered_length)) * (rows.length / rows.powered_length)
        dy = dpowered * (_power(rows.y, self.focusing_factor - 1) * self.focusing_factor)
        dy += rows.y * (along / rows.length)
        self.sums += (dy * rows.y * rows.largest).sum((0, 1))
        return dy.mul_(self.inverse).mul_(x > 0)

    def scale_gradient(self) -> Tensor:
        """What :meth:`backward` has summed up so far."""
        return narrow(-self.sums * self.inverse * torch.sigmoid(self.scale.to(self.dtype)), self.scale.dtype)


class _Keys:
    """Keys with their encoding, and values, a part at a time; what the mask ignores is read as zero."""

    def __init__(
        self,
        k: Tensor,
        v: Tensor,
        encoding: Tensor,
        key_padding_mask: Tensor | None,
        encoding_size: Sequence[int],
        kv_size: Sequence[int],
    ) -> None:
        self.k, self.v, self.encoding, self.mask = k, v, encoding, key_padding_mask
        self.width = kv_size[1]
        self.resizer = None if tuple(encoding_size) == tuple(kv_size) else BandResizer(encoding_size, kv_size)
        self.count: Tensor | int = k.shape[1]
        if key_padding_mask is not None:
            self.count = (~key_padding_mask).sum(dim=1).clamp(min=1).view(-1, 1, 1, 1)

    def parts(self) -> Iterator[Part]:
        """Of whole rows of the map where the encoding has to be stretched."""
        return _parts(self.k, 1 if self.resizer is None else self.width)

    def load(self, part: Part) -> tuple[Tensor, Tensor]:
        """Keys with their encoding, and values, float32 or wider."""
        images, tokens = part
        if self.resizer is not None:
            start, stop = (token // self.width for token in (tokens.start, tokens.stop))
            encoding = self.resizer.band(at_least_float32(self.encoding), start, stop)
        else:
            encoding = self.encoding[images if self.encoding.shape[0] > 1 else slice(None), tokens]
        k = at_least_float32(self.k[part]) + encoding
        return self.clear(k, part), self.clear(at_least_float32(self.v[part]), part)

    def clear(self, x: Tensor, part: Part) -> Tensor:
        """Put zeros where a key is ignored."""
        return x if self.mask is None else x.masked_fill(self.mask[part].unsqueeze(-1), 0)

    def add_encoding_gradient(self, dk: Tensor, part: Part, into: Tensor) -> None:
        """Add what the keys of a part give."""
        tokens = part[1]
        if self.encoding.shape[0] > 1:
            into[part] += dk
        elif self.resizer is None:
            into[:, tokens] += dk.sum(0)
        else:
            start, stop = (token // self.width for token in (tokens.start, tokens.stop))
            self.resizer.add_band_gradient(dk.sum(0), start, stop, into)


def _parts(x: Tensor, step: int = 1) -> Iterator[Part]:
    """Cut ``[B, N, C]`` into parts of about ``CHUNK`` numbers: several images, or ``step`` tokens times a number."""
    batch, tokens, channels = x.shape
    images = max(1, CHUNK // max(1, tokens * channels))
    length = tokens if images > 1 else max(1, CHUNK // (channels * step)) * step
    for start in range(0, tokens, max(1, length)):
        for image in range(0, batch, images):
            yield slice(image, min(image + images, batch)), slice(start, min(start + length, tokens))


def _power(x: Tensor, exponent: float) -> Tensor:
    """By multiplication where that is possible: ``pow`` takes many times as long."""
    if exponent == 1:
        return x.clone()
    if exponent == 2:
        return x * x
    if exponent == 3:
        return (x * x).mul_(x)
    return x.pow(exponent)


def _split(x: Tensor, num_heads: int) -> Tensor:
    """View ``[b, n, C]`` as ``[b, G, n, D]``."""
    return x.view(*x.shape[:2], num_heads, -1).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    """The inverse of :func:`_split`."""
    return x.transpose(1, 2).flatten(2)


def _state(powered: Tensor, values: Tensor, ratio: Tensor, num_heads: int) -> Tensor:
    powered = _split(powered, num_heads).mT
    keys = powered @ ratio.unsqueeze(1)
    return torch.cat([powered @ _split(values, num_heads), keys], -1)
