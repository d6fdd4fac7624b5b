"""Where the parameters of a timm model lie between the images and the classifier: its layers and its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from timm.models._features import FeatureGetterNet, FeatureHookNet
from timm.models._manipulate import group_with_matcher
from torch import nn

from flatten_dense.backbones.dense_maps import DenseMaps

_UNMATCHED = ""  # a name that no pattern of timm matches


@dataclass(frozen=True)
class Depth:
    """Where the parameters of a model lie, by their names; those that start fresh in every task are not listed.

    Args:
        below_head: layers between a parameter and the task's head, itself included. The last block of n has 1, the stem
            n + 1; what comes after all blocks has 0.
        stages: of the parameter, from 0; the stem belongs to the first stage, what comes after all to the last.
    """

    below_head: dict[str, int]
    stages: dict[str, int]

    @cached_property
    def num_stages(self) -> int:
        """How many stages there are."""
        return max(self.stages.values()) + 1


def pretrained_names(body: nn.Module) -> list[str]:
    """Names of the parameters that can come with weights: not the classifier, nor norms added for dense heads."""
    get_classifier: Any = getattr(body, "get_classifier", None)
    parts = get_classifier() if get_classifier else ()
    fresh = list(parts) if isinstance(parts, tuple | list) else [parts]
    if isinstance(body, DenseMaps):
        fresh.append(body.norms)
    ids = {id(parameter) for module in fresh if isinstance(module, nn.Module) for parameter in module.parameters()}
    return [name for name, parameter in body.named_parameters() if id(parameter) not in ids]


def depth_of(body: nn.Module, plain: Callable[[], nn.Module]) -> Depth:
    """Sort the parameters of a model by depth, as timm does.

    The stages are timm's coarse groups; where there is only one, in a plain transformer, each block is a stage.

    Args:
        body: a timm model, or what ``features_only=True`` made of it.
        plain: makes the same model without ``features_only``; only asked if nothing is left of it in ``body``. Its
            values are not needed: it may be made on the meta device.

    Raises:
        ValueError: timm does not say the layers of this model.

    Source: ``timm.optim.param_groups_layer_decay``, whose ``lr_scale`` is ``layer_decay ** below_head``.
    """
    source = _with_matcher(body) or plain()
    if not hasattr(source, "group_matcher"):
        raise ValueError(
            f"timm does not say the layers of a {type(source).__name__}: leave layer_decay at 1 and freeze.stages at 0 "
            "or -1 (all of the backbone), or choose another backbone"
        )
    originals = {name: _original_name(name, body, source) for name in pretrained_names(body)}
    layers, _ = _groups(originals, source, coarse=False)
    groups, has_stem = _groups(originals, source, coarse=True)
    if len({*groups.values()} - {groups[_UNMATCHED]}) - has_stem <= 1:
        groups, has_stem = _groups(originals, source, coarse=False)
    last = max((group for group in groups.values() if group != groups[_UNMATCHED]), default=0)
    return Depth(
        {name: layers[_UNMATCHED] - layers[original] for name, original in originals.items()},
        {name: max(0, min(groups[original], last) - has_stem) for name, original in originals.items()},
    )


def _with_matcher(body: nn.Module) -> nn.Module | None:
    inside = _inside(body)
    return inside if hasattr(inside, "group_matcher") else None


def _inside(body: nn.Module) -> nn.Module:
    """The model that timm wrapped, where it is still there."""
    if isinstance(body, FeatureGetterNet):
        return body.model
    return body["body"] if isinstance(body, FeatureHookNet) and "body" in body else body


def unwrapped_name(name: str, body: nn.Module) -> str:
    """Name in the model, without what ``features_only`` put in front."""
    return name if _inside(body) is body else name.partition(".")[2]


def _original_name(name: str, body: nn.Module, source: nn.Module) -> str:
    """Name in the model before ``features_only`` took parts out of their containers: ``layers_0`` was ``layers.0``."""
    name = unwrapped_name(name, body)
    first, _, rest = name.partition(".")
    if first in dict(source.named_children()):
        return name
    for container, child in source.named_children():
        if isinstance(child, nn.Sequential) and first.startswith(f"{container}_"):
            return f"{container}.{first.removeprefix(f'{container}_')}.{rest}"
    return name


def _groups(originals: dict[str, str], source: nn.Module, coarse: bool) -> tuple[dict[str, int], bool]:
    """Timm's number for each name, the highest for those that match nothing; and whether 0 is the stem's."""
    matcher: Any = source.group_matcher(coarse=coarse)  # type: ignore[operator]
    names = ((name, name) for name in (*originals.values(), _UNMATCHED))
    has_stem = next(iter(matcher)).startswith("stem") if isinstance(matcher, dict) else True
    groups: dict[str, int] = group_with_matcher(names, matcher, reverse=True)
    return groups, has_stem
