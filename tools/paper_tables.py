"""Check the paper's ImageNet figures against our models: parameters and multiply-accumulates of every row.

    python tools/paper_tables.py           # every row, about 15 seconds
    python tools/paper_tables.py PVT-T     # rows with this in their name

Each figure is compared with our count rounded to the digits that are printed; one read off a chart, within 0.1 G. Those
that do not match are printed with what is known of the reason, then what cannot be checked and why. Needs no data, no
weights and no GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flatten_dense.commands.models import Cost, cost_of
from flatten_dense.commands.published import PUBLISHED, PublishedModel

UNITS = {"M": 1e6, "G": 1e9}
CHART_TOLERANCE = 0.1e9
LEFT_OUT, REMARK, UNKNOWN = "explained to the last digit", "possible reason", "no reason known"


@dataclass(frozen=True)
class Check:
    """A figure beside our count.

    Attributes:
        row: the model.
        quantity: ``parameters`` or ``FLOPs``.
        source: ``paper``, ``chart``, ``README`` of the model's own authors, or ``calculated`` from the released code.
        printed: the figure.
        ours: our count.
    """

    row: PublishedModel
    quantity: str
    source: str
    printed: str
    ours: int

    @property
    def agrees(self) -> bool:
        """Whether our count is the figure, to its digits."""
        return agrees(self.ours, self.printed)

    @property
    def reason(self) -> tuple[str, str]:
        """How well a difference is understood, and the reason."""
        if self.quantity == "parameters" and self.row.left_out is not None:
            count, what = self.row.left_out
            if agrees(self.ours + count, self.printed):
                return LEFT_OUT, f"the published model has {count:,} more: {what}"
        remark = self.row.remarks.get(self.printed)
        return (REMARK, remark) if remark else (UNKNOWN, "")


def agrees(count: int, printed: str) -> bool:
    """Whether a count is a printed figure: ``12.2M`` or ``12,150,504`` to its digits, ``~7.0G`` within 0.1 G."""
    if printed.startswith("~"):
        return abs(count - float(printed[1:-1]) * UNITS[printed[-1]]) <= CHART_TOLERANCE
    return rounded(count, printed) == printed


def rounded(count: int, like: str) -> str:
    """Write a count with the digits and the unit of a printed figure."""
    if like[-1] not in UNITS:
        return f"{count:,}"
    decimals = len(like[:-1].partition(".")[2])
    return f"{count / UNITS[like[-1]]:.{decimals}f}{like[-1]}"


def checks_of(row: PublishedModel, cost: Cost) -> Iterator[Check]:
    """All figures of a row that can be compared with a count."""
    if row.parameters:
        yield Check(row, "parameters", "paper", row.parameters, cost.parameters)
    if row.readme:
        yield Check(row, "parameters", "README", row.readme, cost.parameters)
    if row.flops:
        yield Check(row, "FLOPs", "chart" if row.flops.startswith("~") else "paper", row.flops, cost.macs)
    for figure in row.calculated:
        flops = figure.endswith("G")
        yield Check(
            row, "FLOPs" if flops else "parameters", "calculated", figure, cost.macs if flops else cost.parameters
        )


def check_all(rows: Sequence[PublishedModel]) -> list[Check]:
    """Count every row's model and compare."""
    checks = []
    for row in rows:
        checks += checks_of(row, cost_of(row.name, (row.size, row.size), **row.options))
    return checks


def not_checked(rows: Sequence[PublishedModel]) -> list[tuple[str, str]]:
    """What cannot be checked, and why."""
    gone = "not established; the paper may print it in its appendix, which is not at hand"
    missing = [(f"{row.label}, {what}", gone) for row in rows for what, value in _printed(row) if value is None]
    accuracies = sum(row.top1 is not None for row in rows)
    logs = sum(row.log is not None for row in rows)
    return [
        *missing,
        (f"{accuracies} top-1 figures", "they need ImageNet and trained weights"),
        (f"{logs} top-1 / top-5 pairs of released logs", "the same"),
    ]


def _printed(row: PublishedModel) -> tuple[tuple[str, str | None], ...]:
    return ("parameters", row.parameters or row.readme), ("FLOPs", row.flops)


def report(rows: Sequence[PublishedModel], checks: Sequence[Check]) -> str:
    """The mismatches by how well they are understood, what was not checked, and a summary."""
    wrong = [check for check in checks if not check.agrees]
    lines = ["Figures that our counts do not round to", ""]
    for kind in (LEFT_OUT, REMARK, UNKNOWN):
        of_kind = [check for check in wrong if check.reason[0] == kind]
        lines += [f"{kind}: {len(of_kind)}", *map(_line, of_kind), ""]
    lines += ["Not checked", *(f"  {what}: {why}" for what, why in not_checked(rows)), ""]
    lines += [f"{len(checks)} figures checked, {len(checks) - len(wrong)} match, {len(wrong)} do not; by source:"]
    for source in ("paper", "chart", "README", "calculated"):
        of_source = [check for check in checks if check.source == source]
        lines += [f"  {source:10}  {sum(check.agrees for check in of_source):2} of {len(of_source):2} match"]
    return "\n".join(lines)


def _line(check: Check) -> str:
    ours, why = rounded(check.ours, check.printed), check.reason[1]
    figures = f"{check.source:10} {check.printed:>10}, ours {ours:>10} = {check.ours:,}"
    return f"  {check.row.label:19}  {check.quantity:10}  {figures}" + (f"; {why}" if why else "")


def main(args: Sequence[str] | None = None) -> int:
    """Print the report; a mismatch is a finding, not a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of a row's name; all rows by default")
    names = parser.parse_args(args).names or [""]
    rows = [row for row in PUBLISHED if any(name in row.label for name in names)]
    if not rows:
        parser.error(f"no row has {' or '.join(names)} in its name; there are: {', '.join(r.label for r in PUBLISHED)}")
    print(report(rows, check_all(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
