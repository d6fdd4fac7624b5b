from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"


class GoldenOp(NamedTuple):
    x: Tensor
    y: Tensor
    weights: dict[str, Tensor]


@pytest.fixture(scope="session")
def golden_op(golden_io: ModuleType) -> Callable[[str], GoldenOp]:
    """Input, output and weights of an op of the official code, float64."""
    cases = golden_io.load(FOLDER / "ops.json.gz")["cases"]

    def read(case: str) -> GoldenOp:
        arrays = np.load(FOLDER / f"op_{case}.npz")
        filled = golden_io.filled(cases[case]["state_dict"])
        weights = {name: torch.from_numpy(array).double() for name, array in filled.items()}
        return GoldenOp(torch.from_numpy(arrays["x"]).double(), torch.from_numpy(arrays["y"]), weights)

    return read
