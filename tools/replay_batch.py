"""Take again the step whose loss was not finite, and say which layer gave the first value that is no number.

    python tools/replay_batch.py runs/NAME/TIME/nonfinite_step_1234_rank_0.ckpt

The file was written when the training stopped: it holds the weights and the batch, and is read as plain data. The step
is taken on the CPU in float32; where it comes out finite there, the precision of the run is to blame.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from flatten_dense.tasks.checkpoint import load_task, read_checkpoint
from flatten_dense.tasks.detection import DetectionTask
from flatten_dense.tasks.nonfinite import REPLAY_KEY


def replay(path: Path, trusted: Sequence[str] = ()) -> tuple[dict[str, float], str | None]:
    """Compute the losses again.

    Returns:
        The losses by name; and the first module whose output is not finite, None if there is none.

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
    torch.manual_seed(0)
    with torch.no_grad():
        losses = task.losses(saved["batch"]["image"], saved["batch"]["target"])
    return {name: float(value) for name, value in losses.items()}, first[0] if first else None


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
        losses, first = replay(options.file, options.trust)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    saved = read_checkpoint(options.file)[REPLAY_KEY]
    print(f"step {saved['step']}, images {', '.join(map(str, saved['batch']['image_id']))}, {saved['precision']}")
    print(f"{'':20} {'then':>14} {'now, float32':>14}")
    for name, value in losses.items():
        print(f"{name:20} {saved['losses'].get(name, float('nan')):14.6g} {value:14.6g}")
    print(f"first output that is not finite: {first}" if first else "every layer's output is finite")
    return 0 if all(map(torch.isfinite, torch.tensor(list(losses.values())))) else 1


if __name__ == "__main__":
    raise SystemExit(main())
