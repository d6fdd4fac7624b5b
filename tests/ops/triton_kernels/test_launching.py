import pytest
import torch

pytest.importorskip("triton")

from flatten_dense.ops.triton_kernels import launching
from flatten_dense.ops.triton_kernels.launching import Tiles, chunking


@pytest.mark.parametrize(("channels", "block"), [(96, 32), (64, 64), (192, 64), (160, 32), (320, 64), (512, 64)])
def test_steps_over_channels_leave_no_lane_idle(channels, block):
    assert Tiles(channels, 1, torch.float32).block_c == block


@pytest.mark.parametrize(("head_dim", "block"), [(16, 16), (24, 32), (64, 64), (96, 128)])
def test_heads_are_padded_to_a_power_of_two(head_dim, block):
    assert Tiles(2 * head_dim, 2, torch.float32).block_d == block


@pytest.fixture
def h100(monkeypatch):
    monkeypatch.setattr(launching, "processors", lambda device: 132)
    return torch.device("cuda", 0)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 1000, 65536])
@pytest.mark.parametrize(("batch", "num_heads"), [(1, 1), (1, 3), (512, 8)])
def test_chunks_cover_all_tokens_in_whole_tiles_and_none_is_empty(h100, tokens, batch, num_heads):
    tiles = Tiles(64 * num_heads, num_heads, torch.bfloat16)
    chunks, per_chunk = chunking(tokens, batch, tiles, h100)
    assert per_chunk % tiles.block_t == 0
    assert (chunks - 1) * per_chunk < tokens <= chunks * per_chunk


def test_a_long_map_of_one_image_fills_the_processors(h100):
    chunks, _ = chunking(65536, 1, Tiles(96, 3, torch.bfloat16), h100)
    assert 3 * 132 <= 3 * chunks <= 4 * 132


def test_only_what_bf16_holds_is_split():
    precisions = [Tiles(64, 1, dtype).precision for dtype in (torch.bfloat16, torch.float16, torch.float32)]
    assert precisions == ["split", "tf32", "tf32x3"]
