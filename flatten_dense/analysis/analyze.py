"""Measure a model's attention, block by block and head by head, beside that of other cores on the same inputs."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import groupby
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flatten_dense.analysis.capture import AttentionInputs, part_that_runs, watch_attention
from flatten_dense.analysis.convolutions import convolution_matrix
from flatten_dense.analysis.matrices import attention_weights, model_heads, num_heads
from flatten_dense.analysis.replacement import replace_core, windows_of
from flatten_dense.analysis.report import Analysis, HeadAnalysis, RankWithConvolution
from flatten_dense.analysis.statistics import (
    HISTOGRAM_EDGES,
    effective_keys,
    numerical_rank,
    row_entropy,
    sorted_curve,
    token_similarity,
    weight_histogram,
)
from flatten_dense.layers.cores import split_core_name

OWN = "own"
ALL_CHANNELS_UP_TO = 256
"""Queries of a block whose every channel gets a rank; of larger ones some do, singular values being slow."""

SOME_CHANNELS = 8
_AT_ONCE = 2**23
"""Numbers of the matrices that exist at once, one matrix at least."""

_TOLERANCE = 1e-10


def analyze_attention(
    model: nn.Module,
    images: Tensor,
    cores: str | Sequence[str] = (OWN,),
    blocks: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    max_tokens: int = 4096,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Analysis:
    """Measure how sharp attention is, what rank it has, and how much alike it makes the tokens.

    A copy of the model runs in float64 on the CPU. Every matrix is checked against what its core gives.

    Args:
        model: as of :func:`flatten_dense.analysis.capture_attention`; left as it was.
        images: normalised, ``[B, 3, H, W]``. Numbers are means over them, pictures are of the first.
        cores: ``"own"`` for the model's, others by the names that :func:`flatten_dense.layers.make_core` takes. Others
            get the queries, keys and values of the own, its parameters of the same name and shape, and its windows.
        blocks: indices in the order of the model, from the end where negative; None for all.
        heads: of each block, from the end where negative; None for all.
        channels: of each head, from the end where negative, that ranks with the convolution are measured of; None for
            all of them in blocks of up to 256 tokens, and for 8 evenly spread in larger ones.
        max_tokens: a block of more queries or keys is refused.
        progress: called with the heads measured and all heads, each core's by itself.

    Raises:
        ValueError: the model, the images or a choice are not as expected, there is no rule for the matrix of a core, a
            block has too many tokens, or its numbers are not finite.
        RuntimeError: the rule for a core is wrong.
    """
    cores = list(dict.fromkeys([cores] if isinstance(cores, str) else cores))
    _refuse_nothing(images=images, cores=cores, blocks=blocks, heads=heads, channels=channels)
    for name in cores:
        if name != OWN:
            split_core_name(name)
    inputs: list[AttentionInputs] = []

    def keep(call: AttentionInputs) -> None:
        _check(call, heads, channels, max_tokens)
        inputs.append(call)

    watch_attention(copy.deepcopy(part_that_runs(model)).cpu().double(), images.cpu().double(), blocks, keep)
    total = len(cores) * sum(len(_heads_of(call, heads)) for call in inputs)
    measured: list[HeadAnalysis] = []
    with torch.no_grad():
        for name, call, untrained in [(name, *_call_with(name, call)) for call in inputs for name in cores]:
            for head in _heads_of(call, heads):
                measured.append(_measure(call, name, untrained, head, channels))
                progress(len(measured), total)
    settings = {
        "cores": list(cores),
        "blocks": [call.name for call in inputs],
        "heads": None if heads is None else list(heads),
        "channels": None if channels is None else list(channels),
        "images": len(images),
        "image_size": list(images.shape[-2:]),
        "max_tokens": max_tokens,
        "versions": {package: version(package) for package in ("flatten-dense", "torch", "timm")},
    }
    return Analysis(measured, settings)


def _call_with(name: str, call: AttentionInputs) -> tuple[AttentionInputs, tuple[str, ...]]:
    """The call with a core of this name and what it gives, and the core's parameters that are not the model's.

    Raises:
        ValueError: it cannot stand in this block.
    """
    if name == OWN:
        return call, ()
    try:
        core, untrained = replace_core(call.core, name, call.q.shape[2], model_heads(call.core), call.kv_size)
        output = core(call.q, call.k, call.v, call.q_size, call.kv_size)
    except ValueError as error:
        raise ValueError(
            f"{name} cannot stand in {call.name}: {error}; leave it out (--cores), or take other blocks (--blocks)"
        ) from error
    return call._replace(core=core, output=output), untrained


def _measure(
    call: AttentionInputs, name: str, untrained: tuple[str, ...], head: int, channels: Sequence[int] | None
) -> HeadAnalysis:
    """One head of the model, over all images."""
    num_queries, dim = call.q.shape[1:]
    head_dim = dim // model_heads(call.core)
    of_head = range(head * head_dim, (head + 1) * head_dim)
    chosen = [of_head[channel] for channel in _measured_channels(num_queries, head_dim, channels)]
    numbers = []
    for image in range(len(call.q)):
        q, k, v, output = (x[image : image + 1] for x in (call.q, call.k, call.v, call.output))
        own, pictures = _look(call._replace(q=q, k=k, v=v, output=output), of_head, chosen)
        numbers.append(own)
        if image == 0:
            first = pictures
    rank, entropy, keys, similarity = (fmean(values) for values in list(zip(*numbers, strict=True))[:4])
    return HeadAnalysis(
        core=name,
        block=call.name,
        head=head,
        rank_attention=rank,
        rank_with_dwc=_over_images([own.convolved_ranks for own in numbers]),
        entropy=entropy,
        effective_keys=keys,
        token_similarity=similarity,
        num_queries=num_queries,
        num_keys=call.k.shape[1],
        head_dim=head_dim,
        q_size=call.q_size,
        kv_size=call.kv_size,
        windows=windows_of(call.core, call.q_size),
        untrained=untrained,
        weights=first.weights.float(),
        histogram=(HISTOGRAM_EDGES, weight_histogram(first.weights)),
        sorted_curve=sorted_curve(first.weights),
        singular_values=first.values,
        singular_values_with_dwc=first.convolved_values,
    )


class _Numbers(NamedTuple):
    """Of one head and image; means over the core's heads where it has several in the place of one."""

    rank: float
    entropy: float
    effective_keys: float
    token_similarity: float
    convolved_ranks: list[int]


class _Pictures(NamedTuple):
    """Of the first of the core's heads in the place of one: A, its singular values, those of A + B."""

    weights: Tensor
    values: Tensor
    convolved_values: Tensor | None


def _look(call: AttentionInputs, of_head: range, channels: Sequence[int]) -> tuple[_Numbers, _Pictures]:
    """One head and one image.

    Args:
        call: for the image; its core may have several heads in the place of one, such as Hydra attention.
        of_head: channels of the head.
        channels: some of them, that ranks are measured of.
    """
    core, out = call.core, call.output[0]
    if not out.isfinite().all():
        raise ValueError(
            f"block {call.name}: {type(core).__name__} gives numbers that are not finite for these weights"
        )
    width = out.shape[1] // num_heads(core)
    ranks, entropies, keys, convolved_ranks = [], [], [], []
    pictures: list[_Pictures] = []
    for own_head, own_channels in groupby(channels, lambda channel: channel // width):
        weights = attention_weights(core, call.q, call.k, call.v, call.q_size, call.kv_size, [own_head])[0, 0]
        found, convolved_values = _convolve(call, weights, list(own_channels))
        rank, values = numerical_rank(weights)
        ranks.append(float(rank))
        entropies.append(float(row_entropy(weights).mean()))
        keys.append(float(effective_keys(weights).mean()))
        convolved_ranks += found
        pictures = pictures or [_Pictures(weights, values, convolved_values)]
    similarity = float(token_similarity(out[:, of_head.start : of_head.stop]))
    return _Numbers(fmean(ranks), fmean(entropies), fmean(keys), similarity, convolved_ranks), pictures[0]


def _convolve(call: AttentionInputs, weights: Tensor, channels: list[int]) -> tuple[list[int], Tensor | None]:
    """Ranks of A + B over the channels, and the singular values for the channel of median rank; nothing without B.

    Raises:
        RuntimeError: A + B is not what the core computes.
    """
    core, out = call.core, call.output[0]
    ranks: list[int] = []
    values: list[Tensor] = []
    at_once = max(1, _AT_ONCE // weights.numel())
    for start in range(0, len(channels), at_once):
        some = channels[start : start + at_once]
        convolution = convolution_matrix(core, call.q_size, call.kv_size, some)
        matrices, bias = (weights, weights.new_zeros(len(some))) if convolution is None else convolution
        if convolution is not None:
            matrices = matrices + weights
        given = (matrices @ call.v[0, :, some].T.unsqueeze(-1)).squeeze(-1) + bias[:, None]
        error = float((given - out[:, some].T).abs().max() / out.abs().max().clamp(min=1))
        if not error <= _TOLERANCE:  # NaN is wrong, too
            raise RuntimeError(
                f"the matrix of {type(core).__name__} does not give what the core gives (relative error {error:.1e}): "
                "correct the rules for it in flatten_dense.analysis, weights_rule and convolution_rule"
            )
        if convolution is not None:
            rank, singular = numerical_rank(matrices)
            ranks += rank.tolist()
            values += singular
    median = sorted(range(len(ranks)), key=ranks.__getitem__)[len(ranks) // 2] if ranks else None
    return ranks, None if median is None else values[median]


def _over_images(ranks: Sequence[list[int]]) -> RankWithConvolution | None:
    if not ranks[0]:
        return None
    least, median, most = (fmean(map(of, ranks)) for of in (min, statistics.median, max))
    return RankWithConvolution(least, median, most, len(ranks[0]))


def _check(call: AttentionInputs, heads: Sequence[int] | None, channels: Sequence[int] | None, max_tokens: int) -> None:
    """Refuse a block before anything is computed of it."""
    (num_queries, dim), num_keys = call.q.shape[1:], call.k.shape[1]
    if max(num_queries, num_keys) > max_tokens:
        size = num_queries * num_keys * call.q.element_size() / 2**20
        raise ValueError(
            f"{call.name} has N = {num_queries} queries and M = {num_keys} keys: each N x M matrix takes {size:,.0f} "
            f"MiB. The limit is max_tokens={max_tokens} queries or keys (--max-tokens): analyse a smaller image "
            "(--image-size), or other blocks (--blocks)"
        )
    number = model_heads(call.core)
    for what, chosen, count in (("head", heads, number), ("channel", channels, dim // number)):
        wrong = [index for index in chosen or () if not -count <= index < count]
        if wrong:
            raise ValueError(
                f"{call.name} has no {what} {wrong[0]}: there are {count}, 0 to {count - 1} or -{count} to -1"
            )


def _refuse_nothing(**given: Sequence[object] | Tensor | None) -> None:
    for what, chosen in given.items():
        if chosen is not None and not len(chosen):
            raise ValueError(f"{what} must hold at least one, got none")


def _heads_of(call: AttentionInputs, heads: Sequence[int] | None) -> Sequence[int]:
    count = model_heads(call.core)
    return range(count) if heads is None else list(dict.fromkeys(head % count for head in heads))


def _measured_channels(num_queries: int, head_dim: int, channels: Sequence[int] | None) -> Sequence[int]:
    """Those of a head that ranks are measured of, rising."""
    if channels is not None:
        return sorted({channel % head_dim for channel in channels})
    if num_queries <= ALL_CHANNELS_UP_TO or head_dim <= SOME_CHANNELS:
        return range(head_dim)
    return [round(step * (head_dim - 1) / (SOME_CHANNELS - 1)) for step in range(SOME_CHANNELS)]
