"""What the fresh process does: make a model and its images, then run a pass whenever it is told to.

:class:`flatten_dense.profiling.FreshModel` starts it, ``python -m flatten_dense.profiling.worker CASE``. Each line on
its standard input asks for a pass; each line that it writes is JSON: what it loaded, a pass, or why it failed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flatten_dense.backbones import TimmModel
from flatten_dense.profiling.case import Case
from flatten_dense.profiling.memory import PeakMemory, spare_the_machine

_SMALL_SIDE = 64  # pixels
_WORDS_FOR_NO_MEMORY = ("can't allocate memory", "bad_alloc")


def make_pass(case: Case) -> Callable[[Tensor], None]:
    """A call that takes images through the model of a case, and waits until the device is done.

    Args:
        case: the model has random weights.

    Raises:
        ValueError: timm does not know the model, or the model does not take its options or its images.
    """
    for module in case.imports:
        importlib.import_module(module)
    device = torch.device(case.device)
    wrapper = TimmModel(case.name, pretrained=False, drop_path_rate=0.0, options=dict(case.options))
    wrapper.train(case.train).to(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=case.dtype == "bfloat16")

    def run(images: Tensor) -> None:
        with contextlib.nullcontext() if case.train else torch.inference_mode():
            with autocast:
                output: Tensor = wrapper.run(images)
            if case.train:
                torch.autograd.backward(output.float().mean())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        _drop_gradients(wrapper)

    return run


def make_images(case: Case, size: tuple[int, int]) -> Tensor:
    """Random normalised images ``[B, 3, H, W]``, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(case.batch_size, 3, *size, generator=generator).to(case.device)


def main(text: str) -> int:
    """Serve the passes of a case, as said above."""
    # What libraries print must not come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def answer(**values: object) -> None:
            answers.write(json.dumps(values) + "\n")
            answers.flush()

        try:
            case = Case.from_json(text)
            spare_the_machine(torch.device(case.device))
            if case.threads is not None:
                torch.set_num_threads(case.threads)
            run, images = make_pass(case), make_images(case, case.size)
            # A first small pass loads the libraries' code and makes their thread pools: no part of what a size costs.
            run(make_images(case, (min(_SMALL_SIDE, case.size[0]), min(_SMALL_SIDE, case.size[1]))))
            memory = PeakMemory(torch.device(case.device))
            answer(loaded=memory.resting, threads=torch.get_num_threads())
            for _ in sys.stdin:
                started = time.perf_counter()
                run(images)
                seconds = time.perf_counter() - started
                answer(seconds=seconds, peak=memory.read())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            answer(out_of_memory=str(error).splitlines()[0])
        except (ValueError, ImportError) as error:
            answer(refused=str(error))
    return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory cannot be had, which PyTorch has no class for on the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in _WORDS_FOR_NO_MEMORY
    )


def _drop_gradients(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.grad = None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
