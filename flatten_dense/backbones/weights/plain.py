"""Weights for the models of timm itself: the names fit, or they do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from flatten_dense.backbones.depth import pretrained_names, unwrapped_name
from flatten_dense.backbones.timm_model import TimmModel
from flatten_dense.backbones.weights.apply import checked_report, write_values
from flatten_dense.backbones.weights.classifier import fit_classifier
from flatten_dense.backbones.weights.files import Weights
from flatten_dense.backbones.weights.report import WeightReport, WeightRow

_LEAVES = ("weight", "bias")


def load_plain(
    model: TimmModel,
    weights: Weights,
    class_names: Sequence[str] | None,
    source_class_names: Sequence[str] | None,
    min_coverage: float,
) -> WeightReport:
    """Load the weights of the same timm model, as a classifier or for maps, with the statistics of its norms.

    Args:
        model: not of our families.
        weights: of a checkpoint of our runs, of timm, of a plain state dict.
        class_names: as those after it, of :func:`flatten_dense.backbones.load_weights`.
        source_class_names: as there.
        min_coverage: as there.

    Raises:
        ValueError: the source holds another model, or too little of this one.
    """
    body, whole = model.body, model.plain()
    state = body.state_dict()
    head = _classifier(whole)
    here = {f"head.{leaf}": state.pop(f"{head}.{leaf}") for leaf in _LEAVES if f"{head}.{leaf}" in state}
    wanted = {_flat(unwrapped_name(name, body)): name for name in state}
    given, rows = _of_model(weights, wanted, type(whole).__name__)
    flat_head = [f"{_flat(head or '')}_{leaf}" for leaf in _LEAVES]
    theirs = {f"head.{leaf}": given.pop(name) for leaf, name in zip(_LEAVES, flat_head, strict=True) if name in given}

    several_heads = {name for name, _ in body.named_parameters()} - {*pretrained_names(body)}
    values, misfits = {}, []
    for flat, name in wanted.items():
        if flat not in given:
            rows.append(WeightRow("re-initialised", name, "the file has none", state[name].numel()))
        elif given[flat].shape == state[name].shape:
            values[name] = given[flat]
            rows.append(WeightRow("loaded", name, "", state[name].numel()))
        elif name in several_heads:
            rows.append(
                WeightRow("re-initialised", name, f"{tuple(given[flat].shape)} in the file", state[name].numel())
            )
        else:
            misfits.append(f"its {name} is {tuple(given[flat].shape)}, the model's {tuple(state[name].shape)}")
    covered = sum(tensor.numel() for tensor in values.values()) / sum(tensor.numel() for tensor in state.values())

    beyond = {_flat(name): name for name in whole.state_dict()}
    for flat in given.keys() - wanted.keys():
        numel = given[flat].numel()
        if flat in beyond:
            rows.append(WeightRow("dropped", beyond[flat], "the model gives maps", numel))
        else:
            rows.append(WeightRow("unused", flat, "no place in this model", numel))
    taken = sum(tensor.numel() for tensor in values.values())
    unused = sum(row.numel for row in rows if row.kind == "unused")

    names = weights.class_names if source_class_names is None else source_class_names
    of_classifier, rows_of_head = fit_classifier(here, theirs, class_names, names)[::-1]
    shares = covered, taken / max(1, taken + unused)
    report = checked_report(
        weights.description, type(whole).__name__, [*rows, *rows_of_head], misfits, shares, min_coverage
    )
    write_values(weights.description, state | here, values | of_classifier)
    return report


def _classifier(model: nn.Module) -> str | None:
    """Name of the last linear layer, if there is just one."""
    layer = model.get_classifier()  # type: ignore[operator]
    return next((name for name, module in model.named_modules() if module is layer and name), None)


def _flat(name: str) -> str:
    """A name without the structure that `features_only` changes: it makes ``layers_0`` of ``layers.0``."""
    return name.replace(".", "_")


def _of_model(weights: Weights, wanted: Iterable[str], model: str) -> tuple[dict[str, Tensor], list[WeightRow]]:
    """The source's tensors of such a model by their flat names, and rows for what else a task keeps beside it.

    Raises:
        ValueError: there is no such model in it, or there are several.
    """
    names = set(wanted)
    inside: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.tensors.items():
        parts = name.split(".")
        for start in range(len(parts)):
            inside.setdefault(".".join([*parts[:start], ""]), {})[_flat(".".join(parts[start:]))] = tensor
    hits = {prefix: len(names & tensors.keys()) for prefix, tensors in inside.items()}
    most = max(hits.values(), default=0)
    best = [prefix for prefix, number in hits.items() if number == most]
    if not most:
        raise ValueError(
            f"{weights.description} holds no tensor of a {model}: it has {', '.join(list(weights.tensors)[:3])}"
        )
    if len(best) > 1:
        raise ValueError(
            f"{weights.description} holds several such models, under {', '.join(map(repr, best))}; keep one of them"
        )
    others: dict[str, list[Tensor]] = {}
    for name, tensor in weights.tensors.items():
        if not name.startswith(best[0]):
            others.setdefault(name.partition(".")[0], []).append(tensor)
    rows = [
        WeightRow("other part", part, "of the task", sum(tensor.numel() for tensor in tensors), len(tensors))
        for part, tensors in others.items()
    ]
    return inside[best[0]], rows
