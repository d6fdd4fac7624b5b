import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("flatten_dense-*.whl")
    return built


def test_every_recipe_is_in_the_wheel(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"flatten_dense/configs/{path.relative_to(ROOT / 'configs')}" for path in ROOT.glob("configs/**/*.yaml")}
    assert recipes
    assert recipes <= packed


def test_every_module_and_kernel_is_in_the_wheel_and_no_test(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(ROOT)) for kind in ("py", "c", "h") for path in ROOT.glob(f"flatten_dense/**/*.{kind}")
    }
    assert "flatten_dense/ops/native/attention.c" in sources
    assert sources <= packed
    assert not [name for name in packed if name.startswith("tests/")]


def test_recipes_of_an_installed_wheel_are_found(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from flatten_dense.commands.recipes import find_recipe; print(find_recipe('segmentation/{}'))"
    code = code.format("flatten_pvt_fpn_ade20k")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    expected = tmp_path / "flatten_dense/configs/segmentation/flatten_pvt_fpn_ade20k.yaml"
    assert Path(done.stdout.strip()) == expected
