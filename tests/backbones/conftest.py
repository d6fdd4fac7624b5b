import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def golden_io() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_io", Path(__file__).parents[1] / "golden" / "golden_io.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
