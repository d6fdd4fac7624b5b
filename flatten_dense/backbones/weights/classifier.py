"""The classifier of a checkpoint: whole, by the names of its classes, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from flatten_dense.backbones.weights.report import Kind, WeightRow


def fit_classifier(
    head: dict[str, Tensor],
    given: dict[str, Tensor],
    names: Sequence[str] | None,
    given_names: Sequence[str] | None,
) -> tuple[list[WeightRow], dict[str, Tensor]]:
    """Decide what the model's classifier takes from a checkpoint's.

    Args:
        head: the model's ``head.weight`` ``[K, C]`` and ``head.bias`` ``[K]``; empty for no classifier.
        given: the checkpoint's.
        names: of the model's K classes, in order, each once or it is not looked up; None if unknown.
        given_names: of the checkpoint's.

    Returns:
        Rows for the report, and the values for the model; a value keeps the model's rows of classes that the
        checkpoint does not have.

    Raises:
        ValueError: names and rows differ in number.
    """
    if not head:
        return [_row("dropped", name, "the model has no classifier", tensor) for name, tensor in given.items()], {}
    rows = []
    values = {}
    _check_names("class_names", names, head)
    if given:
        _check_names("source_class_names", given_names, given)
    named = names is not None and given_names is not None
    pairs = _pairs(names or (), given_names or ())
    for name, parameter in head.items():
        tensor = given.get(name)
        if tensor is None:
            rows.append(_row("re-initialised", name, "the file has no classifier", parameter))
        elif tensor.shape[1:] != parameter.shape[1:]:
            rows.append(_row("re-initialised", name, f"{tuple(tensor.shape)} in the file", parameter))
        elif tensor.shape == parameter.shape and (not named or list(names or ()) == list(given_names or ())):
            rows.append(_row("loaded", name, "", parameter))
            values[name] = tensor
        elif named and pairs:
            value = parameter.detach().clone()
            for to_row, from_row in pairs:
                value[to_row] = tensor[from_row].to(value)
            values[name] = value
            copied = parameter.numel() * len(pairs) // len(parameter)
            rows.append(WeightRow("copied by name", name, f"{len(pairs)} of {len(parameter)} classes", copied))
            fresh = [own for index, own in enumerate(names or ()) if index not in dict(pairs)]
            if fresh:
                why = f"not in the file: {', '.join(fresh[:5])}{', ...' if len(fresh) > 5 else ''}"
                rows.append(WeightRow("re-initialised", name, why, parameter.numel() - copied, tensors=0))
        else:
            why = "no class in common" if named else f"{len(tensor)} classes in the file, {len(parameter)} here"
            rows.append(_row("re-initialised", name, why, parameter))
    rows += [_row("unused", name, "no place in this model", t) for name, t in given.items() if name not in head]
    return rows, values


def _check_names(option: str, names: Sequence[str] | None, head: dict[str, Tensor]) -> None:
    size = len(head["head.weight"]) if "head.weight" in head else None
    if names is not None and size is not None and len(names) != size:
        raise ValueError(f"{option} must name the {size} classes of the classifier, got {len(names)}")


def _pairs(names: Sequence[str], given_names: Sequence[str]) -> list[tuple[int, int]]:
    """(row here, row there) of the names that either side has exactly once."""
    counts, given_counts = Counter(names), Counter(given_names)
    given_rows = {name: row for row, name in enumerate(given_names)}
    return [(index, given_rows[name]) for index, name in enumerate(names) if counts[name] == given_counts[name] == 1]


def _row(kind: Kind, name: str, detail: str, tensor: Tensor) -> WeightRow:
    return WeightRow(kind, name, detail, tensor.numel())
