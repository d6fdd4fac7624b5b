import pytest
import torch
from torch import nn

from flatten_dense.profiling import Case, worker


def dtypes_of_attention(case: Case, monkeypatch) -> set[tuple[torch.dtype, bool]]:
    """Of what a linear layer gives in a pass, and whether it will be differentiated."""
    seen = set()
    forward = nn.Linear.forward

    def watched(self: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        out = forward(self, x)
        seen.add((out.dtype, out.requires_grad))
        return out

    monkeypatch.setattr(nn.Linear, "forward", watched)
    worker.make_pass(case)(worker.make_images(case, case.size))
    return seen


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pass_is_of_the_precision_and_the_mode_that_were_asked_for(monkeypatch, dtype, train):
    case = Case("flatten_deit_test", (32, 32), {}, train=train, dtype=dtype)
    assert dtypes_of_attention(case, monkeypatch) == {(getattr(torch, dtype), train)}


def test_a_training_pass_goes_back_to_every_parameter_and_leaves_no_gradient(monkeypatch):
    dropped = []
    monkeypatch.setattr(worker, "_drop_gradients", dropped.append)
    case = Case("flatten_pvt_test", (32, 32), train=True)
    worker.make_pass(case)(worker.make_images(case, case.size))
    assert all(parameter.grad is not None for parameter in dropped[0].parameters())
    monkeypatch.undo()
    worker._drop_gradients(dropped[0])
    assert all(parameter.grad is None for parameter in dropped[0].parameters())


def test_models_of_timm_take_sizes_that_are_not_theirs():
    case = Case("vit_tiny_patch16_224", (80, 48), {"depth": 1})
    worker.make_pass(case)(worker.make_images(case, case.size))


def test_images_have_the_size_and_the_number_of_the_case():
    case = Case("flatten_pvt_test", (64, 96), batch_size=3)
    assert worker.make_images(case, case.size).shape == (3, 3, 64, 96)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_words_for_missing_memory_are_understood(error):
    assert worker.is_out_of_memory(error)


def test_other_failures_are_not_taken_for_missing_memory():
    assert not worker.is_out_of_memory(RuntimeError("shapes must match"))
