"""The floors of the house (design, section 1): imports go downward only, and there is no circle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flatten_dense"
FLOORS = [
    {"ops"},
    {"layers"},
    {"backbones"},
    {"heads", "necks", "losses", "data"},
    {"optim", "inference", "metrics", "visualization", "profiling", "analysis"},
    {"callbacks", "loggers"},
    {"tasks"},
    {"commands"},
    {"cli"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports_of(path: Path) -> set[str]:
    """Modules of this package that a file imports, as dotted names below `flatten_dense`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its floor"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {name.removeprefix("flatten_dense.") for name in names if name.startswith("flatten_dense.")}
    return found


FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", [name for name in FILES if name.split(".")[0] in FLOOR_OF])
def test_imports_go_downward(module):
    room = module.split(".")[0]
    for name in imports_of(FILES[module]):
        target = name.split(".")[0]
        if target not in (room, "structures"):
            assert FLOOR_OF[target] < FLOOR_OF[room], f"{module} imports {name}, which is not below it"


def test_every_room_has_a_floor():
    rooms = {name.split(".")[0] for name in FILES} - {"__init__", "structures"}
    assert rooms == set(FLOOR_OF)


def test_structures_is_a_leaf():
    for module, path in FILES.items():
        if module.startswith("structures."):
            assert all(name.startswith("structures.") for name in imports_of(path)), f"{module} is no leaf"


def test_no_circle():
    graph = {}
    for module, path in FILES.items():
        own = module.removesuffix(".__init__")
        graph[own] = {name for name in imports_of(path) if name in FILES or f"{name}.__init__" in FILES} - {own}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in graph[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())
