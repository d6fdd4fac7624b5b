"""One call of an attention core, and what a core inside windows is called with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flatten_dense.layers import Size, WindowedAttention
from flatten_dense.layers.windows import WindowLayout


class CoreCall(NamedTuple):
    """The arguments of every core, in their order; images fill the map.

    Attributes:
        q: ``[B, N, C]``.
        k: ``[B, M, C]``.
        v: ``[B, M, C]``.
        q_size: (H, W) of the queries.
        kv_size: (H, W) of keys and values.
        key_padding_mask: ``[B, M]`` bool, True = ignore that key.
        attn_bias: broadcastable to ``[B, G, N, M]``.
        own_sizes: None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_size: Size
    kv_size: Size
    key_padding_mask: Tensor | None = None
    attn_bias: Tensor | None = None
    own_sizes: Sequence[Size] | None = None


def call_within(windows: WindowedAttention, call: CoreCall) -> CoreCall:
    """What the core inside windows is called with: tokens of the windows ``[B * n, tokens, C]``, padding, bias."""
    calls: list[CoreCall] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append(CoreCall(*arguments, **named))

    handle = windows.core.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        windows(*call)
    finally:
        handle.remove()
    return calls[0]


def scatter_windows(windows: WindowedAttention, size: Size, matrices: Tensor) -> Tensor:
    """Put the matrices of windows where their tokens lie in the map; zero elsewhere, and padding is left out.

    Args:
        windows: how the map is cut.
        size: (H, W) of the map, H * W = N.
        matrices: ``[..., n, tokens, tokens]``, those of an image's windows one after another.

    Returns:
        ``[..., N, N]``.
    """
    num_tokens = size[0] * size[1]
    layout = WindowLayout(size, None, windows.window_size, windows.shifted)
    numbered = torch.arange(1, num_tokens + 1, device=matrices.device).view(1, -1, 1)
    places = layout.split(numbered).squeeze(-1) - 1  # padding is -1
    whole = matrices.new_zeros(*matrices.shape[:-3], num_tokens, num_tokens)
    for window, place in enumerate(places):
        inside = place >= 0
        own = place[inside]
        whole[..., own[:, None], own] = matrices[..., window, :, :][..., inside, :][..., inside]
    return whole
