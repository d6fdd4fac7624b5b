"""The models to measure: each with its own attention and with softmax in its place, or as asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from flatten_dense.backbones import TimmModel
from flatten_dense.backbones.attention import block_cores
from flatten_dense.backbones.staged import Stage, StagedBackbone
from flatten_dense.layers import FocusedLinearAttention, Size
from flatten_dense.profiling.complexity import count_macs, count_parameters


@dataclass(frozen=True)
class Choice:
    """A model with an attention.

    Attributes:
        model: name of timm's registry.
        attention: in the paper's letters or by name; None for a model that has no such choice.
        parameters: with the classifier.
        macs: multiply-accumulates of a forward pass of one image, by its size; None where they cannot be counted.
    """

    model: str
    attention: str | None
    parameters: int
    macs: Mapping[Size, int | None] = field(default_factory=dict, hash=False)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments that make the model so."""
        return {} if self.attention is None else {"attention": self.attention}

    @property
    def has_linear(self) -> bool:
        """Whether a block has linear attention, so that the choice is compared with those that have none."""
        return self.attention is not None and set(self.attention.replace("softmax", "S")) - {"-"} != {"S"}

    def __str__(self) -> str:
        return self.model if self.attention is None else f"{self.model} {self.attention}"


def choices_of(name: str, attentions: Sequence[str], sizes: Sequence[Size]) -> list[Choice]:
    """The choices of a model, each built once, so that what does not exist is known before anything is measured.

    Args:
        name: of timm's registry.
        attentions: strings of any number of stages, of which those that fit are taken; none for the model's own and
            softmax in every stage.
        sizes: to count multiply-accumulates at.

    Raises:
        ValueError: there is no such model, none of the strings fits it, or it does not take a size.
    """
    own = TimmModel(name, pretrained=False, drop_path_rate=0.0, options={}).body
    if not isinstance(own, StagedBackbone):
        return [_choice(name, None, own, sizes)]
    depths = [len(blocks) for blocks in _blocks(own)]
    wanted = _fitting(name, attentions, depths) if attentions else [own_attention(own), "S" * len(depths)]
    models = {
        attention: TimmModel(name, pretrained=False, drop_path_rate=0.0, options={"attention": attention}).body
        for attention in dict.fromkeys(wanted)
    }
    return [_choice(name, attention, model, sizes) for attention, model in models.items()]


def own_attention(model: StagedBackbone) -> str:
    """The attention that a model was built with, in the paper's notation."""
    letters, linear_of_mixed = "", ""
    for blocks in _blocks(model):
        linear = sum(any(isinstance(part, FocusedLinearAttention) for part in block.modules()) for block in blocks)
        is_mixed = 0 < linear < len(blocks)
        letters += "M" if is_mixed else "L" if linear else "S"
        linear_of_mixed = str(linear) if is_mixed else linear_of_mixed
    return letters + linear_of_mixed


def _blocks(model: StagedBackbone) -> list[list[nn.Module]]:
    """The blocks that each letter is for: those of one resolution. In a plain transformer that is all of them."""
    found: list[list[nn.Module]] = []
    for stage in cast(Iterable[Stage], model.stages):
        if stage.patch_embed is not None:
            found.append([])
        found[-1].extend(stage.blocks)
    return found


def _fitting(name: str, attentions: Sequence[str], depths: Sequence[int]) -> list[str]:
    fitting, refusal = [], ""
    for attention in attentions:
        try:
            block_cores(attention, depths)
        except ValueError as error:
            refusal = str(error)
        else:
            fitting.append(attention)
    if not fitting:
        raise ValueError(f"--attention: none of {', '.join(attentions)} fits {name}: {refusal}")
    return fitting


def _choice(name: str, attention: str | None, model: nn.Module, sizes: Sequence[Size]) -> Choice:
    return Choice(name, attention, count_parameters(model), {size: _macs(model, size) for size in sizes})


def _macs(model: nn.Module, size: Size) -> int | None:
    try:
        return count_macs(model, (1, 3, *size))
    except (RuntimeError, NotImplementedError, AssertionError):
        # Some models of timm look at values, which there are none of here; a size is refused when it is run.
        return None
