"""What is compared with what: the paper's tables 3a, 4, 5 and 6 in miniature."""

from __future__ import annotations

from dataclasses import dataclass

_MODEL = "--model.backbone.options"


@dataclass(frozen=True)
class Variant:
    """One of the models that are compared.

    Attributes:
        name: for the table and for the folder of its runs.
        options: of `fit`, that make this variant of the recipe: names, each with its value.
        paper: top-1 on ImageNet of the paper's model, in percent; None where it has none.
        position: on the horizontal axis of the plot, where that is a number.
    """

    name: str
    options: tuple[str, ...] = ()
    paper: float | None = None
    position: float | None = None


@dataclass(frozen=True)
class Experiment:
    """Models that differ in one thing.

    Attributes:
        recipe: as `fit -c` takes it.
        title: of table and plot.
        what: that in which they differ.
        paper: what the paper's scores are of.
        variants: in the order of the paper's scores, or of the number that is varied.
    """

    recipe: str
    title: str
    what: str
    paper: str
    variants: tuple[Variant, ...]


def _core(name: str, paper: float | None) -> Variant:
    return Variant(name, (f"{_MODEL}.attention", name), paper)


def _power(power: int, paper: float) -> Variant:
    return Variant(f"p{power}", (f"{_MODEL}.focusing_factor", str(power)), paper, power)


def _window(side: int, paper: float) -> Variant:
    return Variant(f"{side}x{side}", (f"{_MODEL}.linear_window_size", str(side)), paper, side)


EXPERIMENTS = {
    "cores": Experiment(
        "classification/flatten_deit_micro_cifar",
        "A small DeiT, by its attention",
        "attention",
        "DeiT-T on ImageNet, tables 3a and 4",
        (
            _core("elu", None),
            _core("hydra", 68.3),
            _core("efficient", 70.2),
            _core("relu", 70.5),
            _core("focused_no_dwc_p1", None),  # relu, and the focused ones' learned positions and scale
            _core("linear_angular", 70.8),
            _core("focused_no_dwc", 71.8),
            _core("softmax", 72.2),
            _core("enhanced", 72.9),
            _core("focused_p1", None),  # the convolution without focusing
            _core("focused", 74.1),
        ),
    ),
    "power": Experiment(
        "classification/flatten_swin_micro_cifar",
        "A small FLatten-Swin, by the power p of its focused map",
        "power p",
        "FLatten-Swin-T on ImageNet, table 5",
        (_power(2, 82.03), _power(3, 82.11), _power(4, 81.94), _power(8, 81.99), _power(32, 81.88)),
    ),
    "window": Experiment(
        "classification/flatten_swin_micro_cifar",
        "A small FLatten-Swin, by the windows of its linear attention",
        "window",
        "FLatten-Swin-T on ImageNet, table 6: 7, 14, 28, 56",
        # The first stage of both sees 8, 4, 2 windows a side, and 1.
        (_window(2, 81.6), _window(4, 81.8), _window(8, 81.9), Variant("whole", (), 82.1, 16)),
    ),
}
