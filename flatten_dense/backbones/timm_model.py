"""A timm model inside a task: built by name for any size of image, frozen on demand."""

import difflib
from typing import Any

import timm
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from flatten_dense.backbones.dense_maps import DenseMaps

# What lets timm's transformers take images of other sizes than their own; most models take any and know neither word.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
_SIZE_COMPLAINTS = ("must match", "is invalid for input of size")  # PyTorch's, of sums and reshapes


class TimmModel(nn.Module):
    """What tasks ask of the timm model that they train.

    Args:
        name: a name of timm's registry, with or without a pretrained tag.
        pretrained: start from the weights that timm knows for this name.
        drop_path_rate: stochastic depth. 0 is not passed on, since not every model has it.
        options: further arguments of the model.

    Attributes:
        body: the model.

    Raises:
        ValueError: for an unknown name, an argument that the model does not take, or weights that do not exist.
    """

    def __init__(self, name: str, pretrained: bool, drop_path_rate: float, options: dict[str, Any]) -> None:
        super().__init__()
        _check_name(name)
        self._name = name
        self._is_frozen = False
        arguments = dict(options)
        if drop_path_rate:
            arguments["drop_path_rate"] = drop_path_rate
        try:
            self.body = _create(name, pretrained=pretrained, **arguments)
        except (TypeError, IndexError, RuntimeError, AssertionError) as error:
            raise ValueError(
                f"timm cannot build backbone {name!r} with pretrained={pretrained}, options={arguments}: {error}"
            ) from error

    def run(self, images: Tensor) -> Any:  # noqa: ANN401 - a tensor or several
        """What the model gives for images ``[B, 3, H, W]``.

        Raises:
            ValueError: for images of a size that the model cannot take.
        """
        try:
            return self.body(images)
        except (AssertionError, RuntimeError) as error:  # timm's words for a size that a model cannot take
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _SIZE_COMPLAINTS):
                raise
            height, width = images.shape[-2:]
            raise ValueError(
                f"backbone {self._name!r} cannot take images of {width}x{height} pixels ({error}): train, evaluate "
                "and predict at a size that it takes, or choose another backbone"
            ) from error

    def freeze(self) -> None:
        """Stop training the model: no gradients, no stochastic depth, fixed statistics.

        The LayerNorm that a map of ours gets for dense heads starts fresh, and goes on learning.
        """
        self._is_frozen = True
        self._pretrained.requires_grad_(False)
        self._pretrained.eval()

    def train(self, mode: bool = True) -> "TimmModel":
        """Set the mode of all that is not frozen."""
        super().train(mode)
        if self._is_frozen:
            self._pretrained.eval()
        return self

    @property
    def _pretrained(self) -> nn.Module:
        """All that can come with weights."""
        body: nn.Module = self.body
        return body.model if isinstance(body, DenseMaps) else body


def _create(name: str, **arguments: Any) -> nn.Module:  # noqa: ANN401 - timm's
    """Create a timm model that takes any size of image, if it can."""
    for option in () if is_own(name) else _ANY_SIZE:
        try:
            body = timm.create_model(name, **{**option, **arguments})
        except TypeError as error:
            if not any(word in str(error) for word in option):
                raise
        else:
            for embed in (module for module in body.modules() if isinstance(module, PatchEmbed)):
                embed.dynamic_img_pad = True
            return body
    return timm.create_model(name, **arguments)


def is_own(name: str) -> bool:
    """Whether a name of timm's registry is one of ours."""
    return timm.is_model(name) and timm.model_entrypoint(name).__module__.startswith(f"{__package__}.")


def _check_name(name: str) -> None:
    if ":" in name or timm.is_model(name.partition(".")[0]):
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=5)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models() for the names"
    raise ValueError(f"unknown backbone name {name!r}: {hint}")
