"""Load weights of other runs, of the official code or of timm into our backbones, and say what became of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from timm.models import adapt_input_conv
from torch import Tensor, nn

from flatten_dense.backbones.dense_maps import DenseMaps
from flatten_dense.backbones.staged import StagedBackbone
from flatten_dense.backbones.timm_model import TimmModel
from flatten_dense.backbones.weights.apply import checked_report, write_values
from flatten_dense.backbones.weights.block_parts import BlockParts
from flatten_dense.backbones.weights.classifier import fit_classifier
from flatten_dense.backbones.weights.files import Weights
from flatten_dense.backbones.weights.plain import load_plain
from flatten_dense.backbones.weights.report import Kind, WeightReport, WeightRow
from flatten_dense.backbones.weights.sources import fetch_weights
from flatten_dense.backbones.weights.tables import TABLES, fit_table
from flatten_dense.layers import Size, as_size

_FIRST_CONV = "stages.0.patch_embed.proj.weight"
_FIRST_CONV_ANYWHERE = re.compile(r"(.*?)(?:stages\.0\.)?(?:patch_embed1?\.proj|stage1_conv_embed\.0)\.weight")
_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.")
_NORM = re.compile(r"(?:stages\.\d+\.)?norm\.|norms\.\d+\.")  # absent where only maps were wanted, or other ones


def load_weights(
    model: nn.Module,
    source: str | Path,
    *,
    ema: bool = False,
    sha256: str | None = None,
    class_names: Sequence[str] | None = None,
    source_class_names: Sequence[str] | None = None,
    source_img_size: int | Size | None = None,
    min_coverage: float = 0.8,
) -> WeightReport:
    """Load weights into a backbone; if that is refused, the model is as it was.

    Takes checkpoints of the official FLatten code, of timm's Swin, PVTv2 and DeiT, and of our own runs. Learned tables
    are resized to the model's grids, image channels adapted, a classifier of other classes left fresh. Linear blocks
    take the projections, MLPs and norms of softmax blocks and start their own parts fresh, and the other way round.

    Args:
        model: a FLatten backbone, or what holds exactly one: a TimmBackbone, a task. One of timm's own, in a
            TimmBackbone or a task, takes the weights of the same model.
        source: a file, an ``https://`` URL, ``hf-hub:owner/name[@revision]``, or ``timm:name``.
        ema: take the averaged weights of a file that keeps both.
        sha256: of the file, in hexadecimal; a URL needs it.
        class_names: of the model's classifier, in order. If the source's are known too, rows are copied by name.
        source_class_names: of the source's classifier; checkpoints of our own runs say them.
        source_img_size: side, or (H, W), that the source's learned tables were made for. Needed if they are not square;
            official files and checkpoints of our own runs say it.
        min_coverage: the least share of the model's parameters, and of the source's, that must be used.

    Returns:
        What became of every tensor.

    Raises:
        ValueError: the source cannot be had, would run code, or holds a model of another family or size; an argument
            does not fit.
    """
    size = as_size(source_img_size)
    if source_img_size is not None and size is None:
        raise ValueError(f"source_img_size must be a side or (H, W) in pixels, got {source_img_size!r}")
    if not 0 <= min_coverage <= 1:
        raise ValueError(f"min_coverage is a share from 0 to 1, got {min_coverage}")
    of_timm = _find_timm_model(model)
    if of_timm is not None:
        weights = fetch_weights(source, ema, sha256)
        return load_plain(of_timm, weights, class_names, source_class_names, min_coverage)
    backbone, dense = _find_backbone(model)
    weights = fetch_weights(source, ema, sha256)
    fit = _Fit(backbone, dense, weights, size or weights.img_size)
    fit.place()
    fit.place_classifier(class_names, source_class_names)
    report = fit.report(min_coverage)
    fit.apply()
    return report


class _Fit:
    """Finds out what to do with every tensor before anything is done.

    Args:
        backbone: the model.
        dense: what holds its norms for dense heads; None for no such norms.
        weights: the source's.
        img_size: native (H, W) of the source, None if unknown.

    Raises:
        ValueError: nothing in the source fits.
    """

    def __init__(
        self, backbone: StagedBackbone, dense: DenseMaps | None, weights: Weights, img_size: Size | None
    ) -> None:
        self.backbone, self.weights, self.img_size = backbone, weights, img_size
        self.rows: list[WeightRow] = []
        self.misfits: list[str] = []
        self.values: dict[str, Tensor] = {}
        self.wanted: dict[str, Tensor] = dict(backbone.named_parameters())
        self.given, norms = self._select()
        if dense is not None:
            self.wanted |= {f"norms.{name}": parameter for name, parameter in dense.norms.named_parameters()}
        self.given |= self._place_norms(norms)
        self.classifier = {name: self.given.pop(name) for name in list(self.given) if name.startswith("head.")}
        self.head = {name: self.wanted.pop(name) for name in list(self.wanted) if name.startswith("head.")}
        self.parts = BlockParts(self.given, backbone)

    def place(self) -> None:
        """Give each tensor of the source its place, and each of the model its value."""
        self._compare_depths()
        for name, tensor in self.given.items():
            parameter = self.wanted.get(name)
            why = self.backbone.why_useless(name) or self._why_without_place(name)
            if parameter is not None:
                self._place(name, tensor, parameter)
            elif why is not None:
                self._note("dropped", name, why, tensor)
            elif name.startswith("stages."):
                self.misfits.append(f"its {name} {tuple(tensor.shape)} has no place in the model")
            else:
                self._note("unused", name, "no place in this model", tensor)
        for name, parameter in self.wanted.items():
            if name not in self.given:
                self._leave_fresh(name, parameter)

    def place_classifier(self, names: Sequence[str] | None, given_names: Sequence[str] | None) -> None:
        """Give the classifier its rows; arguments as :func:`load_weights`."""
        if given_names is None:
            given_names = self.weights.class_names
        rows, values = fit_classifier(self.head, self.classifier, names, given_names)
        self.rows += rows
        self.values |= values

    def report(self, min_coverage: float) -> WeightReport:
        """Sum up.

        Raises:
            ValueError: the source holds another model, or too little of this one.
        """
        total = sum(parameter.numel() for parameter in self.wanted.values())
        covered = sum(parameter.numel() for name, parameter in self.wanted.items() if name in self.values)
        taken = sum(tensor.numel() for name, tensor in self.given.items() if name in self.values)
        unused = sum(row.numel for row in self.rows if row.kind == "unused")
        shares = covered / total, taken / (taken + unused)
        model = type(self.backbone).__name__
        return checked_report(self.weights.description, model, self.rows, self.misfits, shares, min_coverage)

    def apply(self) -> None:
        """Write the values into the model, once all are known to be writable.

        Raises:
            ValueError: one is not.
        """
        write_values(self.weights.description, self.wanted | self.head, self.values)

    def _select(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The source's tensors that belong to such a backbone, under our names, and those of its norms for dense heads.

        A task keeps the model somewhere inside: before whatever comes before the first convolution.
        """
        tensors = self.weights.tensors
        matches = [match for match in map(_FIRST_CONV_ANYWHERE.fullmatch, tensors) if match]
        found = {}
        for prefix in sorted({match[1] for match in matches}):
            inside = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            renamed = self.backbone.rename_checkpoint(inside)
            found[prefix] = renamed, sum(name in self.wanted for name in renamed)
        most = max((hits for _, hits in found.values()), default=0)
        best = [prefix for prefix, (_, hits) in found.items() if hits == most]
        source, model = self.weights.description, type(self.backbone).__name__
        if not most:
            raise ValueError(
                f"{source} holds no tensor of a {model}: it has {_some(tensors)}, expected such as {_some(self.wanted)}"
            )
        if len(best) > 1:
            raise ValueError(
                f"{source} holds several such models, under {', '.join(map(repr, best))}; keep one of them"
            )
        prefix = best[0]
        beside = f"{prefix.removesuffix('model.')}norms." if prefix.endswith("model.") else None
        norms = {name.removeprefix(beside): t for name, t in tensors.items() if beside and name.startswith(beside)}
        others: dict[str, list[Tensor]] = {}
        for name, tensor in tensors.items():
            if not name.startswith(prefix) and not (beside and name.startswith(beside)):
                others.setdefault(name.partition(".")[0], []).append(tensor)
        for part, members in others.items():
            numel = sum(tensor.numel() for tensor in members)
            self.rows.append(WeightRow("other part", part, "of the task", numel, len(members)))
        return found[prefix][0], norms

    def _place_norms(self, norms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Name norms for dense heads by the model's; their width tells the stage, where other stages were chosen."""
        of_width = {p.shape: name.rpartition(".")[0] for name, p in self.wanted.items() if name.startswith("norms.")}
        placed = {}
        for name, tensor in norms.items():
            if tensor.shape in of_width:
                placed[f"{of_width[tensor.shape]}.{name.rpartition('.')[2]}"] = tensor
            else:
                self._note("dropped", f"norms.{name}", "the model does not normalise such a map", tensor)
        return placed

    def _compare_depths(self) -> None:
        given = _depths(self.given)
        built, full = len(self.backbone.stages), len(self.backbone.feature_info)
        if not built <= len(given) <= full:
            self.misfits.append(f"it has {len(given)} stages, the model {built}")
        for index, depth in _depths(self.wanted).items():
            if index in given and given[index] != depth:
                self.misfits.append(f"it has {given[index]} blocks in stages.{index}, the model {depth}")

    def _place(self, name: str, tensor: Tensor, parameter: Tensor) -> None:
        received, expected = tuple(tensor.shape), tuple(parameter.shape)
        kind: Kind = "loaded"
        detail = ""
        leaf = name.rpartition(".")[2]
        if leaf in TABLES and received[:-2] + received[-1:] == expected[:-2] + expected[-1:]:
            try:
                tensor, detail = fit_table(self.backbone, name, tensor, self.img_size)
            except ValueError as error:
                self.misfits.append(str(error))
                return
            kind = "resized" if detail else "loaded"
        elif (
            name == _FIRST_CONV and received != expected and received[:1] + received[2:] == expected[:1] + expected[2:]
        ):
            if received[1] != 3:
                self.misfits.append(
                    f"its images have {received[1]} channels: only 3 can become the model's {expected[1]}"
                )
                return
            tensor, kind = adapt_input_conv(expected[1], tensor), "adapted"
            detail = f"{received[1]} image channels -> {expected[1]}"
        if tensor.shape != parameter.shape and self.parts.differ(name):
            self._note("dropped", name, self._why_without_place(name) or "", tensor)
            self._leave_fresh(name, parameter)
            return
        if tensor.shape != parameter.shape:
            self.misfits.append(f"its {name} is {received}, the model's {expected}")
            return
        self.values[name] = tensor
        self._note(kind, name, detail, tensor)

    def _why_without_place(self, name: str) -> str | None:
        """Why a tensor has no place in a model of its family, or None if it should have one."""
        stage = re.match(r"stages\.(\d+)\.", name)
        if stage and len(self.backbone.stages) <= int(stage[1]) < len(self.backbone.feature_info):
            return "the model ends before this stage"
        if _NORM.match(name):
            return "the model does not normalise there"
        return self.parts.why_dropped(name)

    def _leave_fresh(self, name: str, parameter: Tensor) -> None:
        why = "the file has none" if _NORM.match(name) else self.parts.why_fresh(name)
        if why is None:
            self.misfits.append(f"it lacks {name}, {tuple(parameter.shape)} in the model")
            return
        self._note("re-initialised", name, why, parameter)

    def _note(self, kind: Kind, name: str, detail: str, tensor: Tensor) -> None:
        self.rows.append(WeightRow(kind, name, detail, math.prod(tensor.shape)))


def _find_backbone(model: nn.Module) -> tuple[StagedBackbone, DenseMaps | None]:
    found = [module for module in model.modules() if isinstance(module, StagedBackbone)]
    if len(found) != 1:
        raise ValueError(
            f"load_weights fills one FLatten backbone, and {type(model).__name__} holds {len(found)}: expected a model "
            "such as timm.create_model('flatten_swin_tiny'), or a TimmBackbone of one"
        )
    dense = next((module for module in model.modules() if isinstance(module, DenseMaps)), None)
    return found[0], dense


def _find_timm_model(model: nn.Module) -> TimmModel | None:
    """The only model of timm in what is no FLatten model."""
    if any(isinstance(module, StagedBackbone) for module in model.modules()):
        return None
    found = [module for module in model.modules() if isinstance(module, TimmModel)]
    return found[0] if len(found) == 1 else None


def _depths(names: Iterable[str]) -> dict[int, int]:
    """Blocks of each stage."""
    blocks = {(int(match[1]), int(match[2])) for match in map(_BLOCK.match, names) if match}
    return {stage: sum(index == stage for index, _ in blocks) for stage, _ in sorted(blocks)}


def _some(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3])
