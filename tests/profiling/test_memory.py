import os
from pathlib import Path

import pytest
import torch

from flatten_dense.profiling import PeakMemory, available_memory, memory

CPU = torch.device("cpu")
MEBIBYTE = 2**20
needs_linux = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be set back")


@needs_linux
def test_the_peak_is_what_was_taken_though_it_is_free_again():
    peak = PeakMemory(CPU)
    torch.ones(64 * MEBIBYTE, dtype=torch.uint8)
    assert 63 * MEBIBYTE < peak.read() < 72 * MEBIBYTE  # pages of the heap may be given back meanwhile


@needs_linux
def test_what_was_taken_before_does_not_count():
    torch.ones(64 * MEBIBYTE, dtype=torch.uint8)
    assert PeakMemory(CPU).read() < 8 * MEBIBYTE


@needs_linux
def test_what_was_freed_before_counts_when_it_is_taken_again():
    def take():
        return len([torch.ones(2**14, dtype=torch.uint8) for _ in range(64 * 64)])

    take()  # tensors small enough for the C library to keep them when they are freed
    peak = PeakMemory(CPU)
    take()
    assert peak.read() > 48 * MEBIBYTE


def test_without_setting_back_earlier_peaks_hide_smaller_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    torch.ones(64 * MEBIBYTE, dtype=torch.uint8)
    peak = PeakMemory(CPU)
    torch.ones(16 * MEBIBYTE, dtype=torch.uint8)
    assert peak.read() < 8 * MEBIBYTE


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    monkeypatch.setattr(memory, "resource", None)
    assert PeakMemory(CPU).read() is None


@pytest.mark.parametrize(
    "names",
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_a_container_has_what_its_limit_leaves(monkeypatch, tmp_path, names):
    (tmp_path / "memory").mkdir()
    for name, number in zip(names, (10 * MEBIBYTE, 7 * MEBIBYTE), strict=True):
        (tmp_path / name).write_text(f"{number}\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory(CPU) == 3 * MEBIBYTE


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="another system tells it otherwise")
def test_a_container_without_a_limit_has_what_the_machine_has(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory(CPU) > 16 * MEBIBYTE


@needs_linux
def test_a_process_can_take_what_is_free_and_no_more(monkeypatch, tmp_path):
    limits = []
    monkeypatch.setattr(memory, "_OOM_SCORE", tmp_path / "oom_score_adj")
    monkeypatch.setattr(memory, "available_memory", lambda device: 5 * MEBIBYTE)
    monkeypatch.setattr(memory.resource, "setrlimit", lambda kind, values: limits.append((kind, values[0])))
    memory.spare_the_machine(CPU)
    own = memory._kibibytes(Path("/proc/self/status"), "VmData")
    ((kind, limit),) = limits
    assert kind == memory.resource.RLIMIT_DATA
    assert abs(limit - own - 5 * MEBIBYTE) < MEBIBYTE
    assert (tmp_path / "oom_score_adj").read_text() == "1000"


def test_a_process_on_a_gpu_has_no_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_OOM_SCORE", tmp_path / "oom_score_adj")
    monkeypatch.setattr(memory, "available_memory", lambda device: 5 * MEBIBYTE)
    before = memory.resource and memory.resource.getrlimit(memory.resource.RLIMIT_DATA)
    memory.spare_the_machine(torch.device("cuda"))
    assert before == (memory.resource and memory.resource.getrlimit(memory.resource.RLIMIT_DATA))
