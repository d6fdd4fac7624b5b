"""Any timm model as a backbone: images in, a list of NCHW maps out."""

import difflib
from collections.abc import Callable
from typing import Any

import timm
from torch import Tensor, nn


class TimmBackbone(nn.Module):
    """A timm model without its classifier, giving the maps of its stages from fine to coarse.

    Args:
        name: a name of timm's registry, ``flatten_pvt_tiny`` or ``resnet18``, with or without a pretrained tag.
        pretrained: start from the weights that timm knows for this name.
        drop_path_rate: stochastic depth. 0 is not passed on, since not every model has it.
        out_indices: stages to give, None for all that the model gives by itself.
        options: further arguments of the model, ``{"attention": "LLSS"}`` say.

    Attributes:
        channels: of each map.
        strides: of each map; it is ceil(H / stride) x ceil(W / stride) for models that take any size.

    Raises:
        ValueError: for an unknown name, an argument that the model does not take, or weights that do not exist.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        drop_path_rate: float = 0.0,
        out_indices: tuple[int, ...] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_name(name)
        arguments = dict(options or {})
        if drop_path_rate:
            arguments["drop_path_rate"] = drop_path_rate
        if out_indices is not None:
            arguments["out_indices"] = tuple(out_indices)
        try:
            self.body = timm.create_model(name, pretrained=pretrained, features_only=True, **arguments)
        except (TypeError, IndexError, RuntimeError, AssertionError) as error:
            raise ValueError(
                f"timm cannot build backbone {name!r} with pretrained={pretrained}, options={arguments}: {error}"
            ) from error
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self._to_nchw = _converter(name, str(getattr(self.body.output_fmt, "value", self.body.output_fmt)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map ``[B, 3, H, W]``, normalised, to one ``[B, channels[i], h, w]`` per stage."""
        return [self._to_nchw(feature) for feature in self.body(images)]


def _check_name(name: str) -> None:
    if ":" in name or timm.is_model(name.partition(".")[0]):
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=5)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models() for the names"
    raise ValueError(f"unknown backbone name {name!r}: {hint}")


def _channels_last_to_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _converter(name: str, output_format: str) -> Callable[[Tensor], Tensor]:
    converters = {"NCHW": _unchanged, "NHWC": _channels_last_to_first}
    if output_format not in converters:
        raise ValueError(f"backbone {name!r} gives {output_format} features, a dense head needs maps: NCHW or NHWC")
    return converters[output_format]
