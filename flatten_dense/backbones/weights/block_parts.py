"""What the blocks of a file and of a model have beside projections, norms and MLPs: there attentions differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from torch import nn

from flatten_dense.layers import ReluLinearAttention

_ATTENTION_PART = re.compile(
    r"(stages\.\d+\.blocks\.\d+)\.attn\.(?:core\.|cores\.\d+\.)*"
    r"(positional_encoding|scale|dwc|relative_position_bias_table|sr|norm|lepe)\b"
)
_OWN_PARTS = ("positional_encoding", "scale", "dwc")
_KINDS = {
    frozenset(_OWN_PARTS): "linear attention",
    frozenset(["positional_encoding", "scale"]): "linear attention without a convolution",
    frozenset(["dwc"]): "linear angular attention",
    frozenset[str](): "attention without parts of its own",  # ReLU's, softmax within the whole map
}
_FORM_PARTS = ("relative_position_bias_table", "sr", "norm")  # of windows or of reduced keys, in either attention
_MLP_CONVOLUTION = re.compile(r"(stages\.\d+\.blocks\.\d+)\.mlp\.dwconv\.")


class BlockParts:
    """Says which tensors of a block only one side may have, because its attention is another there.

    Args:
        given: names of the source's tensors, as ours.
        backbone: the model.
    """

    def __init__(self, given: Iterable[str], backbone: nn.Module) -> None:
        self._given = _own_parts(given)
        self._here = _own_parts(name for name, _ in backbone.named_parameters())
        self._relu_here = {
            name.partition(".attn.")[0]
            for name, module in backbone.named_modules()
            if isinstance(module, ReluLinearAttention)
        }

    def differ(self, name: str) -> bool:
        """Whether a tensor is a part of attention, and its block's is another here than in the source."""
        part = _ATTENTION_PART.match(name)
        return part is not None and self._has_other_attention(part[1])

    def why_dropped(self, name: str) -> str | None:
        """Why a tensor of the source may have no place in its block here, or None if it should have one."""
        convolution, part = _MLP_CONVOLUTION.match(name), _ATTENTION_PART.match(name)
        if convolution and not self._given[convolution[1]]:  # it may be of enhanced attention
            return "this block's MLP has no convolution"
        if part and part[2] in _FORM_PARTS:
            return "this block's attention has no such part"
        if part and self._has_other_attention(part[1]):
            return f"belongs to {_KINDS[self._given[part[1]]]}; this block has {_KINDS[self._here[part[1]]]}"
        return None

    def why_fresh(self, name: str) -> str | None:
        """Why the source may lack a tensor of the model, or None if it should have it."""
        convolution, part = _MLP_CONVOLUTION.match(name), _ATTENTION_PART.match(name)
        if part and self._has_other_attention(part[1]):
            return f"the file's block has {_KINDS[self._given[part[1]]]}"
        if (part and part[2] in _FORM_PARTS) or (convolution and convolution[1] in self._relu_here):
            return "the file has none"
        return None

    def _has_other_attention(self, block: str) -> bool:
        given = self._given[block]
        return given in _KINDS and given != self._here[block]


def _own_parts(names: Iterable[str]) -> defaultdict[str, frozenset[str]]:
    """Which parameters the attention of each block has that no projection has."""
    parts: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for match in map(_ATTENTION_PART.match, names):
        if match and match[2] in _OWN_PARTS:
            parts[match[1]] |= {match[2]}
    return parts
