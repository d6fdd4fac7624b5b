"""`flatten-dense knn`: what a backbone's features say of photos, by the classes of their nearest neighbours."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from flatten_dense.backbones import TimmBackbone, TimmClassifier, load_weights
from flatten_dense.callbacks.metrics_file import weights_hash
from flatten_dense.commands.devices import find_device
from flatten_dense.commands.recipe_sections import class_named, recipe_section
from flatten_dense.commands.recipes import find_recipe
from flatten_dense.commands.runs import new_run
from flatten_dense.data.base import Split
from flatten_dense.data.classification import ClassificationDataModule
from flatten_dense.data.classification.datamodule import IMAGENET_EVALUATION
from flatten_dense.inference.features import extract_features
from flatten_dense.metrics import nearest_neighbour_accuracy
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.checkpoint import load_task, read_recipe
from flatten_dense.tasks.classification import ClassificationTask

_DESCRIPTION = """Classify each validation photo by the training photos whose features are most like its own, without
training anything: what a frozen backbone knows. The model comes from a checkpoint of any task (--ckpt_path), or from a
classification recipe with weights (-c RECIPE --model.weights SOURCE)."""

_OTHER_TASKS = ("SemanticSegmentationTask", "DetectionTask")


def run(args: Sequence[str]) -> None:
    """Evaluate a backbone by its nearest neighbours, print top-1 and top-5, and write `knn.json` into a new run.

    Args:
        args: `--ckpt_path FILE`, or `-c RECIPE --model.weights SOURCE`; `--data` options as `fit` takes them; `--k`,
            `--temperature`, `--device`, `--runs`, `--name`.

    Raises:
        ValueError: a recipe, an option, a checkpoint or the data are not as expected.
        argparse.ArgumentError: jsonargparse refuses an option.
    """
    parser = _parser()
    given, sections, default_name = _with_checkpoint(args)
    parser.set_defaults(name=default_name)
    options = parser.parse_args([*sections, *given])
    device = find_device(options.device)
    if min(options.k) < 1:
        raise ValueError(f"--k must be at least 1 neighbour, got {min(options.k)}")
    if not options.temperature > 0:
        raise ValueError(f"--temperature must be above 0, got {options.temperature}")
    data, backbone, facts = _build(parser, options)
    backbone.eval().requires_grad_(False).to(device)
    data.setup("validate")
    scores, counts = _evaluate(data, backbone, sorted(set(options.k)), options.temperature, device)
    directory = new_run(Path(options.runs), f"{options.name}-knn")
    content = {
        "k": {str(num): {"top1": top1, "top5": top5} for num, (top1, top5) in scores.items()},
        "temperature": options.temperature,
        **counts,
        **facts,
        "input": data.input_format.to_dict(),
        "weights_sha256": weights_hash(backbone),
        "versions": {name: version(name) for name in ("flatten-dense", "torch", "timm")},
    }
    (directory / "knn.json").write_text(json.dumps(content, indent=2) + "\n")
    lines = ["   k  top-1 %  top-5 %"]
    lines += [f"{num:4}  {100 * top1:7.2f}  {100 * top5:7.2f}" for num, (top1, top5) in scores.items()]
    lines.append(f"{counts['queries']} photos by the {counts['bank']} of training: {directory / 'knn.json'}")
    sys.stdout.write("\n".join(lines) + "\n")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="flatten-dense knn", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a classification recipe, by name or as a file")
    parser.add_argument("--ckpt_path", type=str | None, default=None, help="a checkpoint of any task")
    parser.add_argument("--trust", type=list[str], default=[], help="a package of yours that a checkpoint may name")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5, 10, 20], help="numbers of neighbours")
    parser.add_argument("--temperature", type=float, default=0.07, help="the smaller, the more the nearest decide")
    parser.add_argument("--device", type=str | None, default=None, help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
    parser.add_argument("--name", type=str, default="knn", help="name of this run (default: the recipe's)")
    parser.add_subclass_arguments(ClassificationTask, "model", required=False)
    parser.add_subclass_arguments(ClassificationDataModule, "data", required=True)
    parser.link_arguments("data.labels", "model.init_args.labels", apply_on="instantiate")
    return parser


def _with_checkpoint(args: Sequence[str]) -> tuple[list[str], list[str], str]:
    """The options without recipes, what recipes and the checkpoint say as options, and a name for the run."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("-c", "--config", action="append", default=[])
    finder.add_argument("--ckpt_path", type=Path)
    finder.add_argument("--trust", action="append", default=[])
    known, rest = finder.parse_known_args(args)
    recipes = [find_recipe(name) for name in known.config]
    name = recipes[0].stem if recipes else "knn"
    stack: list[dict[str, object]] = []
    if known.ckpt_path is not None:
        if any(option.startswith("--model") for option in rest):
            raise ValueError("--ckpt_path holds model and weights: leave out the options of --model")
        saved = read_recipe(known.ckpt_path, known.trust)
        name = name if recipes else str(saved["name"])
        stack.append({"data": _data_of(saved)})
        rest += ["--ckpt_path", str(known.ckpt_path), *(f"--trust+={package}" for package in known.trust)]
    for recipe in recipes:
        names = ("data",) if known.ckpt_path is not None else ("model", "data")
        stack.append({name: recipe_section(recipe, name) for name in names})
        task = class_named(stack[-1].get("model"))
        if task in _OTHER_TASKS:
            raise ValueError(f"-c {recipe}: knn reads classification recipes, of a {task} its checkpoint: --ckpt_path")
    return rest, [word for section in stack for word in ("--config", json.dumps(section))], name


def _data_of(saved: dict[str, Any]) -> dict[str, Any]:
    """The data of a classifier's checkpoint with classes of their own; else a folder of photos per class."""
    if set(saved["labels"]) == {"class_names"}:
        data: dict[str, Any] = saved["data"]
        del data["init_args"]["labels"]
        return data
    input_format = {**IMAGENET_EVALUATION.to_dict(), "normalization": saved["input_format"]["normalization"]}
    return {"class_path": "ImageFolderDataModule", "init_args": {"input_format": input_format}}


def _build(
    parser: ArgumentParser, options: Namespace
) -> tuple[ClassificationDataModule, TimmBackbone | TimmClassifier, dict[str, Any]]:
    """The data, the backbone with its weights, and where these are from."""
    model = options.get("model")
    if options.ckpt_path is not None:
        data = parser.instantiate(options).data
        task: BaseTask = load_task(options.ckpt_path, options.trust)
        return data, _backbone(task), {"checkpoint": options.ckpt_path}
    if model is None:
        raise ValueError(
            "knn needs a model: --ckpt_path RUN/checkpoints/best.ckpt, or -c RECIPE --model.weights SOURCE"
        )
    source, pretrained = model.init_args.weights, model.init_args.backbone.init_args.pretrained
    if source is None and not pretrained:
        raise ValueError(
            "knn needs the weights to use: --model.weights SOURCE, --model.backbone.pretrained true for those of timm, "
            "or --ckpt_path RUN/checkpoints/best.ckpt"
        )
    built = parser.instantiate(options)
    facts = {"backbone": model.init_args.backbone.init_args.name, "weights": source or "timm's"}
    if source is not None:
        sys.stdout.write(f"{load_weights(built.model.backbone, source)}\n\n")
    return built.data, _backbone(built.model), facts


def _backbone(task: BaseTask) -> TimmBackbone | TimmClassifier:
    backbone = task.backbone
    if not isinstance(backbone, TimmBackbone | TimmClassifier):
        raise ValueError(f"knn pools the features of a TimmClassifier or TimmBackbone, got a {type(backbone).__name__}")
    return backbone


def _evaluate(
    data: ClassificationDataModule,
    backbone: TimmBackbone | TimmClassifier,
    nums: list[int],
    temperature: float,
    device: torch.device,
) -> tuple[dict[int, tuple[float, float]], dict[str, int]]:
    """Scores by number of neighbours, and how many photos they are of."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def features(split: Split, what: str) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
            loader = data.evaluation_loader(split)
            number = len(loader.dataset)  # type: ignore[arg-type]
            bar = bars.add_task(what, total=number)
            return extract_features(
                backbone.pooled, loader, number, device, lambda done: bars.update(bar, completed=done)
            )

        queries, targets, query_paths = features("val", "Validation photos")
        bank, labels, bank_paths = features("train", "Training photos")
        if not set(query_paths).isdisjoint(bank_paths):
            raise ValueError(
                "some photos are in both the training and the validation folder, and would find themselves: see "
                "--data.train_folder and --data.val_folder"
            )
        fitting = [num for num in nums if num <= len(bank)]
        if not fitting:
            raise ValueError(f"--k: there are only {len(bank)} training photos to find {min(nums)} neighbours among")
        bar = bars.add_task("Comparing", total=len(queries))
        scores = nearest_neighbour_accuracy(
            queries,
            targets,
            bank,
            labels,
            fitting,
            temperature,
            device,
            lambda done: bars.update(bar, completed=done),
        )
    return scores, {"queries": len(queries), "bank": len(bank)}
