import pytest
import torch

from flatten_dense.ops.streaming import chunks as module
from flatten_dense.ops.streaming.chunks import chunks


@pytest.mark.parametrize("numbers", [1, 10, 24, 50, 1000])
@pytest.mark.parametrize("step", [1, 3])
def test_chunks_cover_all_tokens_once(monkeypatch, numbers, step):
    monkeypatch.setattr(module, "NUMBERS", numbers)
    x = torch.zeros(5, 6, 2)
    for chunk in chunks(x, step):
        x[chunk] += 1
        assert (chunk[1].stop - chunk[1].start) % step == 0
    assert (x == 1).all()


def test_small_images_share_a_chunk(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 24)
    assert list(chunks(torch.zeros(3, 6, 2))) == [(slice(0, 2), slice(0, 6)), (slice(2, 3), slice(0, 6))]


def test_a_large_image_is_cut(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 10)
    tokens = [chunk[1] for chunk in chunks(torch.zeros(1, 12, 2))]
    assert tokens == [slice(0, 5), slice(5, 10), slice(10, 12)]


def test_no_token_is_no_chunk():
    assert list(chunks(torch.zeros(2, 0, 4))) == []


def test_chunks_are_larger_where_a_launch_costs_more_than_a_cache_saves():
    shape = (1, 2**16, 64)
    on_cpu, elsewhere = (list(chunks(torch.zeros(1, device=device).expand(shape))) for device in ("cpu", "meta"))
    assert len(on_cpu) == 16
    assert len(elsewhere) == 1
