"""How attention kernels are launched: tiles, chunks, precision of the products, and tensors they can read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.ops.triton_kernels import device_functions

PROCESSORS_WITHOUT_GPU = 1  # in the interpreter


def launch(
    kernel: Any,  # noqa: ANN401 - triton is untyped
    programs: int,
    arguments: tuple[object, ...],
    **constants: object,
) -> None:
    """Run a kernel on a one-dimensional grid, on the device of its first argument."""
    first = arguments[0]
    assert isinstance(first, Tensor)
    on_device: AbstractContextManager[object] = torch.cuda.device(first.device) if first.is_cuda else nullcontext()
    with on_device:
        kernel[(programs,)](*arguments, **constants)


@dataclass(frozen=True)
class Tiles:
    """Constants of the kernels for C channels in G heads.

    Args:
        channels: C.
        num_heads: G.
        dtype: what queries, keys and values are, or promote to; decides how products are computed.
    """

    channels: int
    num_heads: int
    dtype: torch.dtype

    @property
    def head_dim(self) -> int:
        """D."""
        return self.channels // self.num_heads

    @property
    def block_d(self) -> int:
        """D as a power of two that the matrix units take."""
        return max(16, power_of_two(self.head_dim))

    @property
    def block_c(self) -> int:
        """Channels per step of a pass over rows: what leaves the fewest lanes idle, the larger one if equal."""
        return min((64, 32), key=lambda block: -(-self.channels // block) * block)

    @property
    def block_t(self) -> int:
        """Tokens of a tile. With these numbers, compiled for Hopper, registers suffice and blocks share a processor."""
        return 64 if self.precision == "split" and self.block_d <= 64 else 32

    @property
    def num_warps(self) -> int:
        """Of a kernel with such tiles."""
        return 4 if self.block_d <= 64 else 8

    @property
    def programs_per_processor(self) -> int:
        """Of a sum over tokens: whole rounds of the 4, 3 or 2 that share one of Hopper; partial sums stay few."""
        return 6 if self.block_d == 64 else 4

    @property
    def precision(self) -> str:
        """Of the products.

        bf16 tokens are operands as they are, and what is computed in float32 is split into two bf16 numbers. float16
        lacks the range for that; TF32 has it, and rounds no more coarsely than float16 does. With three products it is
        as exact as float32, and takes less shared memory, of which wide heads leave little.
        """
        if self.dtype == torch.bfloat16:
            return "split"
        return "tf32" if self.dtype == torch.float16 and self.block_d <= 64 else "tf32x3"

    @property
    def state_dtype(self) -> torch.dtype:
        """Of the state that kernels read."""
        return self.dtype if self.precision == "split" else torch.float32

    @property
    def fold(self) -> int:
        """Rows of a tile that are held by different threads, which load 16 bytes each."""
        return min(self.block_t, self.num_warps * 32 * (16 // self.dtype.itemsize) // self.block_d)

    def over_heads(self, larger: int = 1, encoding: int = 0) -> dict[str, object]:
        """Constants and options of the kernels that work head by head.

        Args:
            larger: how many times the usual size tiles are.
            encoding: its mode; where rows of a table are gathered, shared memory has no room to load them ahead.
        """
        ahead = self.block_d <= 64 and encoding != device_functions.STRETCHED.value
        return {
            "G": self.num_heads,
            "D": self.head_dim,
            "BLOCK_D": self.block_d,
            "BLOCK_T": self.block_t * larger,
            "PRECISION": self.precision,
            "num_warps": self.num_warps * larger,
            "num_stages": 2 if ahead else 1,
        }


def power_of_two(number: int) -> int:
    """The least one that is not below ``number``."""
    return 1 << (number - 1).bit_length()


@cache
def processors(device: torch.device) -> int:
    """How many multiprocessors a device has."""
    if device.type != "cuda":
        return PROCESSORS_WITHOUT_GPU
    return torch.cuda.get_device_properties(device).multi_processor_count


def chunking(tokens: int, batch: int, tiles: Tiles, device: torch.device) -> tuple[int, int]:
    """Number of chunks, and tokens in each, for a sum over the tokens of each image and head."""
    wanted = -(-tiles.programs_per_processor * processors(device) // (batch * tiles.num_heads))
    blocks = -(-tokens // tiles.block_t)
    per_chunk = -(-blocks // wanted)
    return -(-blocks // per_chunk), per_chunk * tiles.block_t


def readable(x: Tensor) -> Tensor:
    """The tensor itself where its last dimension is dense, which is all that kernels ask."""
    return x if x.stride(-1) == 1 else x.contiguous()


def readable_mask(key_padding_mask: Tensor | None, otherwise: Tensor) -> Tensor:
    """The mask as bytes; any tensor where there is none, since a kernel's argument must be something."""
    return otherwise if key_padding_mask is None else key_padding_mask.contiguous().view(torch.uint8)


def inverse_scales_of(scale: Tensor) -> Tensor:
    """1 / softplus(scale), [C] in float32."""
    return F.softplus(scale.float()).reciprocal().flatten()


def encoding_mode(encoding_size: Sequence[int], kv_size: Sequence[int]) -> int:
    """Which form of encoding the kernels are compiled for."""
    same = tuple(encoding_size) == tuple(kv_size)
    mode = device_functions.SAME_GRID if same else device_functions.STRETCHED
    return int(mode.value)
