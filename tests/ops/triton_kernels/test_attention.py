import importlib.util
import sys

import pytest
import torch

from flatten_dense.ops.triton_kernels import attention


class OnGpu:
    """As much of a tensor as the choice of a form looks at."""

    is_cuda = True
    device = torch.device("cuda", 0)

    def __init__(self, channels=64, dtype=torch.bfloat16, tokens=4):
        self.shape, self.dtype = (1, tokens, channels), dtype

    def numel(self):
        return self.shape[1] * self.shape[2]


@pytest.fixture
def recent_gpu(monkeypatch):
    monkeypatch.setattr(attention, "_can_compile", lambda device: True)
    monkeypatch.setattr(attention, "_shared_memory", lambda device: 227 * 1024)


@pytest.mark.usefixtures("recent_gpu")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("head_dim", [16, 24, 128])
def test_takes_heads_of_16_to_128_channels(dtype, head_dim):
    assert attention.supports(OnGpu(3 * head_dim, dtype), 3, 3)


@pytest.mark.usefixtures("recent_gpu")
@pytest.mark.parametrize(
    "q",
    [OnGpu(8), OnGpu(129), OnGpu(dtype=torch.float64), OnGpu(tokens=0), torch.ones(1, 4, 64)],
    ids=["narrow", "wide", "double", "no_tokens", "cpu"],
)
def test_leaves_the_rest_to_other_forms(q):
    assert not attention.supports(q, 1, 3)


@pytest.mark.usefixtures("recent_gpu")
@pytest.mark.parametrize(("head_dim", "answer"), [(64, True), (65, False)])
def test_wide_heads_need_a_gpu_with_much_shared_memory(monkeypatch, head_dim, answer):
    monkeypatch.setattr(attention, "_shared_memory", lambda device: 99 * 1024)
    assert attention.supports(OnGpu(head_dim), 1, 3) == answer


@pytest.fixture
def gpu_of(monkeypatch):
    """Pretends that there is a GPU of some compute capability."""
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(attention, "_run_a_kernel", lambda device: None)
    attention._can_compile.cache_clear()
    yield lambda *capability: monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    attention._can_compile.cache_clear()


@pytest.mark.parametrize(("capability", "answer"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_must_multiply_bf16(gpu_of, capability, answer):
    gpu_of(*capability)
    assert attention.supports(OnGpu(), 1, 3) == answer


def test_says_once_why_kernels_cannot_be_built_and_leaves_all_to_other_forms(gpu_of, monkeypatch):
    def fail(device):
        raise RuntimeError("Failed to find C compiler")

    gpu_of(9, 0)
    monkeypatch.setattr(attention, "_run_a_kernel", fail)
    with pytest.warns(UserWarning, match="Failed to find C compiler") as warned:
        assert [attention.supports(OnGpu(), 1, 3) for _ in range(2)] == [False, False]
    assert len(warned) == 1


def test_the_form_is_imported_where_triton_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    spec = importlib.util.spec_from_file_location("fresh_attention", attention.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert not fresh.supports(torch.ones(1, 4, 64), 1, 3)
