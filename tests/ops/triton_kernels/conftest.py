import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Kernels run on a GPU or in Triton's interpreter, which must be chosen before triton is imported: test_interpreter.py
# starts a process of its own for it.
collect_ignore = [] if INTERPRETED or torch.cuda.is_available() else ["test_attention_kernels.py"]


@pytest.fixture
def interpreted() -> bool:
    return INTERPRETED


@pytest.fixture
def device(interpreted: bool) -> torch.device:
    return torch.device("cpu" if interpreted else "cuda")
