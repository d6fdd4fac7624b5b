"""The last steps of loading weights: is it enough, are the numbers sound, and into the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flatten_dense.backbones.weights.report import WeightReport, WeightRow


def checked_report(
    source: str,
    model: str,
    rows: Sequence[WeightRow],
    misfits: Sequence[str],
    shares: tuple[float, float],
    min_coverage: float,
) -> WeightReport:
    """Sum up what would become of every tensor.

    Args:
        source: where the weights come from.
        model: what is filled.
        rows: of the report.
        misfits: what shows that the source holds another model.
        shares: of the model's parameters that come from the source, and of the source that has a place in the model.
        min_coverage: the least of both.

    Raises:
        ValueError: the source holds another model, or too little of this one.
    """
    if misfits:
        more = f"; {len(misfits) - 1} more such differences" if len(misfits) > 1 else ""
        raise ValueError(f"{source} holds another model than this {model}: {misfits[0]}{more}")
    report = WeightReport(source, tuple(rows), *shares)
    if report.coverage < min_coverage:
        raise ValueError(
            f"{source} holds only {report.coverage:.1%} of the parameters of this {model}, below min_coverage="
            f"{min_coverage}. The most would stay fresh in {report.largest('re-initialised')}; lower min_coverage if "
            "that is meant"
        )
    if report.used < min_coverage:
        raise ValueError(
            f"only {report.used:.1%} of what {source} holds has a place in this {model}, below min_coverage="
            f"{min_coverage}. The most is left over in {report.largest('unused')}; lower min_coverage if that is meant"
        )
    return report


@torch.no_grad()
def write_values(source: str, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write values into a model, once all are known to be writable.

    Args:
        source: where they come from.
        tensors: of the model, by name.
        values: for some of them.

    Raises:
        ValueError: a value is not writable; the model is as it was.
    """
    ready = {}
    for name, value in values.items():
        if value.is_floating_point() != tensors[name].is_floating_point():
            expected = "floating numbers" if tensors[name].is_floating_point() else "whole numbers"
            raise ValueError(f"{source}: {name} holds {value.dtype}, expected {expected}")
        if not value.is_meta and not value.isfinite().all():
            raise ValueError(
                f"{source}: {name} holds numbers that are not finite: the file is damaged, or its training diverged"
            )
        try:
            ready[name] = value.to(tensors[name].device, tensors[name].dtype)
        except RuntimeError as error:  # a tensor saved without its numbers, or no memory left
            raise ValueError(f"{source}: {name} cannot be loaded: {error}") from None
    for name, value in ready.items():
        tensors[name].copy_(value)
