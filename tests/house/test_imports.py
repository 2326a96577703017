"""The house of five floors: a room imports only from floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nix_seed

ROOT = Path(nix_seed.__file__).parent
FLOORS = ["ground", "formats", "rules", "clients", "flows", "cli"]
MODULES = sorted(ROOT.rglob("*.py"))
# An auditor reads these floors: they decide, and touch nothing outside.
PURE = {"ground", "formats", "rules"}
OUTSIDE = {"subprocess", "socket", "ssl", "urllib3", "http", "time", "random", "secrets"}
# What talks to the world: clients alone do.
WORLD = {"subprocess", "socket", "ssl", "urllib3", "http", "sigstore"}
LINES = 400


def imports(path: Path) -> set[str]:
    """Return every module name imported anywhere in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(parts: tuple[str, ...]) -> tuple[str, str]:
    """Return (floor, room): on the format floor a room is one outside specification."""
    return parts[0], parts[1].removesuffix(".py") if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    floor, mine = room(path.relative_to(ROOT).parts)
    if floor not in FLOORS:
        assert floor in {"__init__.py", "__main__.py"}, f"{path} stands on no floor"
        return
    for name in imports(path):
        parts = tuple(name.split("."))
        if parts[0] != "nix_seed" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        other, theirs = room(parts[1:])
        assert FLOORS.index(other) <= FLOORS.index(floor), f"{path} imports {name}, above it"
        if floor == other == "formats" and theirs:
            assert mine == theirs, f"{path} imports its sibling {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_floors_touch_nothing_outside(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    if floor in PURE:
        used = {name.split(".")[0] for name in imports(path)}
        assert not used & OUTSIDE
        assert "os.environ" not in path.read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_clients_alone_start_processes_and_open_connections(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] != "clients":
        assert not {name.split(".")[0] for name in imports(path)} & WORLD


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_room(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES
