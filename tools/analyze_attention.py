r"""Measure and picture the attention of a model: how sharp it is, what rank it has, and what other cores would make.

    python tools/analyze_attention.py flatten_deit_tiny --weights deit.pth --image photo.jpg --out analysis
    python tools/analyze_attention.py runs/NAME/TIME/checkpoints/best.ckpt --image photo.jpg --out analysis \
        --cores own relu focused_p1 --blocks 0 -1 --query 100,60 --query 20,200

MODEL is one of `flatten-dense models`, or the checkpoint of a run, which also says how a photo becomes an input. All
cores get the same queries, keys and values, those of the model: nothing is changed in it. `own` is the model's core;
docs/analysis.md says what is measured.

The folder gets analysis.json and analysis.md (the numbers), a PNG for each block and head with a column for each core,
and depth.png (the numbers over the blocks).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor, nn

from flatten_dense.analysis import Analysis, HeadAnalysis, analyze_attention
from flatten_dense.backbones import TimmClassifier, load_weights
from flatten_dense.commands.models import parse_size
from flatten_dense.data.images import read_image
from flatten_dense.data.shape_scenes import MIN_SIDE, draw_scene
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.layers import CORE_NAMES, FocusedLinearAttention, ReluLinearAttention, SoftmaxAttention, as_size
from flatten_dense.structures import InputFormat
from flatten_dense.tasks.checkpoint import load_task
from flatten_dense.visualization import draw_attention_sheet, plot_depth

OWN, COMPARED = "own", ("softmax", "relu", "focused")
FOCUSING_FACTOR = 3  # of the core called "focused"
PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.75))  # of height and width: the queries, unless --query names others
SCENE = 256  # pixels, of a model without a size of its own


class Subject(NamedTuple):
    """A model to look at.

    Attributes:
        model: in evaluation mode.
        name: for titles.
        weights: where they come from, in words.
        input_format: how a photo becomes an input.
    """

    model: nn.Module
    name: str
    weights: str
    input_format: InputFormat


class Photo(NamedTuple):
    """An image to look at it with.

    Attributes:
        source: in words.
        input: normalised, ``[3, H, W]``.
        pixels: the same as uint8.
    """

    source: str
    input: Tensor
    pixels: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def __str__(self) -> str:
        return f"{self.source}, {self.size[0]} x {self.size[1]} pixels"


def load_subject(model: str, weights: str | None, options: dict[str, Any], seed: int) -> Subject:
    """Build a registered model, or the one in a checkpoint.

    Raises:
        ValueError: there is no such model, or it does not take the options or the weights.
    """
    if model.endswith(".ckpt") or Path(model).is_file():
        if weights is not None or options:
            raise ValueError(f"{model} holds model and weights: leave out --weights and --option")
        task = load_task(model)
        return Subject(task, model, "weights of the checkpoint", task.input_format)
    torch.manual_seed(seed)
    body: Any = TimmClassifier(model, options=options).eval().body
    size = as_size(options.get("img_size")) or tuple(body.pretrained_cfg["input_size"][1:])
    if weights is not None:
        print(f"{load_weights(body, weights)}\n")
    source = f"RANDOM weights, seed {seed}" if weights is None else f"weights {weights}"
    return Subject(body, model, source, InputFormat(scale=size, resize="squash"))


def load_photo(path: Path | None, input_format: InputFormat, seed: int) -> Photo:
    """Read a photo, or draw a scene, and make an input of it.

    Raises:
        ValueError: the file cannot be read.
    """
    if path is None:
        sides = input_format.crop or input_format.scale or (SCENE, SCENE)
        scene = draw_scene(np.random.default_rng(seed), (max(MIN_SIDE, sides[0]), max(MIN_SIDE, sides[1])))
        source, pixels = f"a drawn scene of shapes, seed {seed}", torch.from_numpy(scene.image).permute(2, 0, 1)
    else:
        source, pixels = str(path), read_image(path)
    image = EvalTransform(input_format)(pixels)
    return Photo(source, image, input_format.normalization.undo(image))


def find_points(queries: Sequence[str], size: tuple[int, int]) -> list[tuple[float, float]]:
    """Query points (y, x) in pixels of an image of this (H, W).

    Raises:
        ValueError: a query is no point, or lies outside the image.
    """
    if not queries:
        return [(int(y * size[0]), int(x * size[1])) for y, x in PLACES]
    points = []
    for query in queries:
        try:
            y, x = map(float, query.split(","))
        except ValueError:
            raise ValueError(f"--query takes Y,X in pixels of the resized image, like 100,60; got {query!r}") from None
        if not (0 <= y < size[0] and 0 <= x < size[1]):
            raise ValueError(
                f"--query {query} lies outside the image, which is resized to {size[0]} x {size[1]} pixels (height x "
                f"width): Y must be from 0 to {size[0] - 1}, X from 0 to {size[1] - 1}"
            )
        points.append((y, x))
    return points


def default_cores(model: nn.Module) -> list[str]:
    """The model's own core, it without focusing, and of those that the paper compares what is not its own anyway."""
    kinds = {_kind(part) for part in model.modules() if isinstance(getattr(part, "num_heads", None), int)}
    focused = [part for part in model.modules() if isinstance(part, FocusedLinearAttention)]
    without = "focused_p1" if any(part.dwc is not None for part in focused) else "focused_no_dwc_p1"
    same = [without] if any(part.focusing_factor != 1 for part in focused) else []
    return [OWN, *same, *(name for name in COMPARED if kinds != {name})]


def _kind(core: nn.Module) -> str:
    if isinstance(core, FocusedLinearAttention):
        return "focused" if core.dwc is not None and core.focusing_factor == FOCUSING_FACTOR else "another"
    return {SoftmaxAttention: "softmax", ReluLinearAttention: "relu"}.get(type(core), "another")


def draw(analysis: Analysis, subject: Subject, photo: Photo, points: list[tuple[float, float]], out: Path) -> None:
    """Draw a sheet for each block and head, and the numbers over the blocks."""
    sheets: dict[tuple[str, int], list[HeadAnalysis]] = {}
    for head in analysis.heads:
        sheets.setdefault((head.block, head.head), []).append(head)
    model = f"{subject.name}, {subject.weights}"
    with _progress("Drawing") as show:
        for done, ((block, index), heads) in enumerate(sheets.items()):
            show(done, len(sheets))
            tokens = f"N = {heads[0].num_queries}, M = {heads[0].num_keys}, d = {heads[0].head_dim}"
            tokens += "".join(f", windows {height} x {width}" for height, width in heads[0].windows)
            title = f"{model}\n{block}, head {index}: {tokens}\n{photo}"
            draw_attention_sheet(photo.pixels, points, heads, out / f"{block}.head{index}.png", title)
    plot_depth(analysis.heads, out / "depth.png", f"{model}; medians over the heads of a block")


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A bar on a terminal, to be called with what is done and the total."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _run(options: argparse.Namespace, command: str) -> None:
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ValueError(f"--out {options.out}: not an empty folder; name a new one, nothing is overwritten")
    if "enhanced" in (options.cores or ()):
        raise ValueError("--cores enhanced has the same attention as relu, and a convolution in the MLP: take relu")
    subject = load_subject(options.model, options.weights, dict(options.option), options.seed)
    input_format = subject.input_format
    if options.image_size is not None:
        size = parse_size([options.image_size], "--image-size")
        input_format = replace(input_format, scale=size, resize="squash", crop=None)
    photo = load_photo(options.image, input_format, options.seed)
    points = find_points(options.query, photo.size)
    cores = list(dict.fromkeys(options.cores or default_cores(subject.model)))
    chosen = {name: getattr(options, name) for name in ("blocks", "heads", "channels", "max_tokens")}
    with _progress("Measuring") as show:
        analysis = analyze_attention(subject.model, photo.input[None], cores, **chosen, progress=show)
    facts = {
        "command": command,
        "model": subject.name,
        "weights": subject.weights,
        "image": photo.source,
        "input": input_format.to_dict(),
        "queries": points,
        "seed": options.seed,
    }
    analysis = replace(analysis, settings={**facts, **analysis.settings})
    options.out.mkdir(parents=True, exist_ok=True)
    table = f"{subject.name}, {subject.weights}.\n{photo}.\n\n{analysis.to_markdown()}"
    (options.out / "analysis.json").write_text(json.dumps(analysis.to_json(), indent=2, allow_nan=False) + "\n")
    (options.out / "analysis.md").write_text(table, encoding="utf-8")
    draw(analysis, subject, photo, points, options.out)
    print(f"{table}\n{options.out}: analysis.json, analysis.md, depth.png, and BLOCK.headNUMBER.png for each head")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analyze_attention.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name, or the checkpoint of a run")
    add("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    add("--weights", metavar="SOURCE", help="a file, https://..., hf-hub:..., timm:... (default: random)")
    add(
        "--option",
        type=parse_option,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the model: attention=LLSS",
    )
    add("--image", type=Path, metavar="FILE", help="a photo (default: a drawn scene of shapes)")
    add("--image-size", metavar="SIZE", help="224 or 256x384 (height x width), aspect not kept (default: the model's)")
    add(
        "--cores",
        nargs="+",
        metavar="CORE",
        help=f"own, {', '.join(sorted({*CORE_NAMES} - {'enhanced'}))}, focused_p8, ... (default: own, the same without "
        "focusing, softmax, relu, focused)",
    )
    add("--blocks", type=int, nargs="+", metavar="INDEX", help="from 0, or from the end by -1 (default: all)")
    add("--heads", type=int, nargs="+", metavar="INDEX", help="of each block, from 0 (default: all)")
    add(
        "--query",
        action="append",
        default=[],
        metavar="Y,X",
        help="point to draw heat maps of, in pixels of the "
        "resized image, from its top left corner; may be repeated (default: three points)",
    )
    add(
        "--channels",
        type=int,
        nargs="+",
        metavar="INDEX",
        help="of a head, to measure the rank with the convolution of (default: all up to 256 tokens, else 8)",
    )
    add("--max-tokens", type=int, default=4096, metavar="NUMBER", help="blocks of more are refused (default: 4096)")
    add("--seed", type=int, default=0, help="of random weights and of the drawn scene (default: 0)")
    return parser


def parse_option(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE, the value as in YAML."""
    key, is_given, value = text.partition("=")
    if not key or not is_given:
        raise argparse.ArgumentTypeError(f"takes KEY=VALUE, like attention=LLSS; got {text!r}")
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise argparse.ArgumentTypeError(f"takes a value as in YAML, like attention=LLSS; got {text!r}") from None


def join_queries(args: Sequence[str]) -> list[str]:
    """Arguments with --query=-1,3 in the place of --query -1,3, which argparse takes for an option."""
    joined: list[str] = []
    for arg in args:
        if joined and joined[-1] == "--query" and not arg.startswith("--"):
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status, 2 if something given is not as it must be."""
    given = list(sys.argv[1:] if args is None else args)
    options = _parser().parse_args(join_queries(given))
    try:
        _run(options, shlex.join(["python", "tools/analyze_attention.py", *given]))
    except (ValueError, OSError) as error:
        print(f"analyze_attention.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
