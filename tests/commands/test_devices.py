from types import SimpleNamespace

import pytest
import torch

from flatten_dense.commands.devices import find_device


def test_a_named_device():
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_taken_if_there_is_one(monkeypatch, has_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch, "empty", lambda *_, device: SimpleNamespace(device=torch.device(device)))
    assert find_device(None).type == device


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="--device warp: PyTorch cannot use it here"):
        find_device("warp")


def test_a_device_that_computes_nothing():
    with pytest.raises(ValueError, match="--device meta: must be cpu or cuda"):
        find_device("meta")
