"""Take again the step whose loss was not finite, and say which layer gave the first value that is no number.

    python tools/replay_batch.py runs/NAME/TIME/nonfinite_step_1234_rank_0.ckpt

The file was written when the training stopped: it holds the weights, the batch and the state of the random numbers, and
is read as plain data. The step is taken on the CPU, in the precision of the run and in float32: if only the first comes
out wrong, the precision is to blame. A run on a GPU has drawn its random numbers there, so other regions are sampled.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flatten_dense.data.images import first_few
from flatten_dense.tasks.checkpoint import load_task, read_checkpoint
from flatten_dense.tasks.detection import DetectionTask
from flatten_dense.tasks.nonfinite import REPLAY_KEY

FULL = "32-true"
MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Retaken(NamedTuple):
    """What a step gave this time.

    Attributes:
        losses: by name.
        first: the first module whose output is not finite; None if there is none.
    """

    losses: dict[str, float]
    first: str | None

    @property
    def is_finite(self) -> bool:
        """Whether all losses are."""
        return all(map(torch.isfinite, torch.tensor(list(self.losses.values()))))


def replay(path: Path, trusted: Sequence[str] = ()) -> dict[str, Retaken]:
    """Compute the losses again.

    Returns:
        By precision: that of the run, if it was a mixed one, then float32.

    Raises:
        ValueError: the file is not one of a step that went wrong.
    """
    saved = read_checkpoint(path).get(REPLAY_KEY)
    task = load_task(path, trusted)
    if saved is None or not isinstance(task, DetectionTask):
        raise ValueError(f"{path} holds no batch to take again; expected a nonfinite_step_*.ckpt")
    first: list[str] = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not first and not _is_finite(output):
                first.append(f"{name} ({type(module).__name__})")

        module.register_forward_hook(hook)

    for name, module in task.named_modules():
        if not any(module.children()):
            watch(name, module)
    task.train()
    retaken = {}
    for precision in dict.fromkeys((saved["precision"], FULL)):
        if precision not in (*MIXED, FULL):
            continue
        first.clear()
        torch.set_rng_state(saved["random_state"])
        with torch.no_grad(), torch.autocast("cpu", MIXED.get(precision), enabled=precision in MIXED):
            losses = task.losses(saved["batch"]["image"], saved["batch"]["target"])
        values = {name: float(value) for name, value in losses.items()}
        retaken[precision] = Retaken(values, first[0] if first else None)
    return retaken


def broken_weights(path: Path) -> list[str]:
    """Names of the weights in the file that are not finite: an earlier step has spoilt those."""
    return [name for name, weights in read_checkpoint(path)["state_dict"].items() if not _is_finite(weights)]


def _is_finite(output: object) -> bool:
    if isinstance(output, Tensor):
        return bool(output.isfinite().all())
    return all(map(_is_finite, output)) if isinstance(output, list | tuple) else True


def main(args: Sequence[str] | None = None) -> int:
    """Print what happened then and what happens now; return 1 if a loss is not finite again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="nonfinite_step_*.ckpt of a run")
    parser.add_argument("--trust", action="append", default=[], help="a package of yours whose classes it may name")
    options = parser.parse_args(args)
    try:
        retaken = replay(options.file, options.trust)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    saved = read_checkpoint(options.file)[REPLAY_KEY]
    print(f"step {saved['step']}, images {', '.join(map(str, saved['batch']['image_id']))}, {saved['precision']}")
    print(f"{'':20} {'then':>14}" + "".join(f" {f'now, {precision}':>16}" for precision in retaken))
    for name, value in saved["losses"].items():
        print(f"{name:20} {value:14.6g}" + "".join(f" {again.losses[name]:16.6g}" for again in retaken.values()))
    broken = broken_weights(options.file)
    if broken:
        print(f"not finite before the step already: {len(broken)} tensors of weights, {first_few(broken)}")
    for precision, again in retaken.items():
        print(f"{precision}: {_verdict(again)}")
    return 0 if all(again.is_finite for again in retaken.values()) else 1


def _verdict(again: Retaken) -> str:
    if again.first:
        return f"the first output that is not finite is that of {again.first}"
    return "every layer's output is finite" + (", and so are the losses" if again.is_finite else ", but not the losses")


if __name__ == "__main__":
    raise SystemExit(main())
