"""How the weights of the families start."""

from __future__ import annotations

import math

from timm.layers.weight_init import trunc_normal_
from torch import nn


def init_linear(module: nn.Module) -> None:
    """The initialisation of Swin, CSWin and DeiT: linear layers and tables; convolutions keep torch's own."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for name in ("pos_embed", "relative_position_bias_table"):
        if isinstance(getattr(module, name, None), nn.Parameter):
            trunc_normal_(getattr(module, name), std=0.02)


def init_pvt(module: nn.Module) -> None:
    """The initialisation of PVT and PVTv2: as :func:`init_linear`, convolutions normal by their fan-out."""
    init_linear(module)
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
