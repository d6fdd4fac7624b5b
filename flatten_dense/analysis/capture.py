"""What the attention of a model is computed from, taken while it looks at images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from flatten_dense.backbones.staged import StagedBackbone
from flatten_dense.layers import Size
from flatten_dense.layers.projections import ProjectedAttention


class AttentionInputs(NamedTuple):
    """One call of an attention core.

    Attributes:
        name: of the block, ``stages.2.blocks.0``.
        core: the outermost core, with its windows where it has them; the model's own.
        q: ``[B, N, C]``, detached, in the model's type.
        k: ``[B, M, C]``.
        v: ``[B, M, C]``.
        q_size: (H, W) of the queries, H * W = N.
        kv_size: (H, W) of keys and values, H * W = M.
        output: ``[B, N, C]``, before the projection back.
    """

    name: str
    core: nn.Module
    q: Tensor
    k: Tensor
    v: Tensor
    q_size: Size
    kv_size: Size
    output: Tensor


def capture_attention(model: nn.Module, images: Tensor, blocks: Sequence[int] | None = None) -> list[AttentionInputs]:
    """Run a model over images, in evaluation mode and without gradients, and keep what its attention gets and gives.

    The model is left as it was.

    Args:
        model: a FLatten backbone, or anything that holds one: a TimmBackbone, a task. Of a task only the backbone runs.
        images: normalised, ``[B, 3, H, W]``; brought to the model's type and device.
        blocks: indices of blocks in the order of the model, from the end where negative; None for all.

    Returns:
        One entry for each block, in the order of the model.

    Raises:
        ValueError: the model has no such attention, there is no such block, or the model cannot take the images.
    """
    captured: list[AttentionInputs] = []
    watch_attention(model, images, blocks, captured.append)
    return captured


def watch_attention(
    model: nn.Module, images: Tensor, blocks: Sequence[int] | None, visit: Callable[[AttentionInputs], object]
) -> None:
    """As :func:`capture_attention`, but show ``visit`` each call as it happens, while the cores carry hooks.

    What it raises ends the run.
    """
    model = part_that_runs(model)
    handles = []
    try:
        for name, path in attention_paths(model, blocks).items():
            attention = cast(ProjectedAttention, model.get_submodule(path))
            handles.append(attention.core.register_forward_hook(partial(_visit, name, visit)))
        # A compiled program would not see hooks that came after it.
        with _evaluating(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            model(images.to(next(model.parameters())))
    finally:
        for handle in handles:
            handle.remove()


def part_that_runs(model: nn.Module) -> nn.Module:
    """The backbone of a task, whose other parts want more than images; a model itself otherwise."""
    backbone = getattr(model, "backbone", None)
    return backbone if isinstance(backbone, nn.Module) else model


def attention_paths(model: nn.Module, blocks: Sequence[int] | None = None) -> dict[str, str]:
    """Where attention lies in a model.

    Args:
        model: as it runs, see :func:`part_that_runs`.
        blocks: as of :func:`capture_attention`.

    Returns:
        For each block its name, ``stages.2.blocks.0``, and the path of its attention in the model.

    Raises:
        ValueError: the model has no attention, or there is no such block.
    """
    backbone = next((path for path, part in model.named_modules() if isinstance(part, StagedBackbone)), "")
    paths = [path for path, part in model.named_modules() if isinstance(part, ProjectedAttention)]
    count = len(paths)
    if not paths:
        raise ValueError(
            f"{type(model).__name__} has no block with an attention core to look into; `flatten-dense models` lists "
            "the models that have"
        )
    for block in blocks or ():
        if not -count <= block < count:
            raise ValueError(f"there is no block {block}: the model has {count}, 0 to {count - 1} or -{count} to -1")
    if blocks is not None:
        paths = [paths[block] for block in blocks]
    return {path.removeprefix(backbone).strip(".").removesuffix(".attn"): path for path in paths}


def _visit(
    name: str, visit: Callable[[AttentionInputs], object], core: nn.Module, arguments: tuple[Any, ...], output: Tensor
) -> None:
    q, k, v, q_size, kv_size = arguments[:5]
    visit(AttentionInputs(name, core, q.detach(), k.detach(), v.detach(), q_size, kv_size, output.detach()))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, then for each module the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
