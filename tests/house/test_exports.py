"""``__all__`` is true: every name in it exists, and every public definition is in it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import nix_seed

ROOT = Path(nix_seed.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py")
# The only module without an interface of its own: the command's table is for the command alone.
PRIVATE = {"cli/main.py": {"COMMANDS", "LazyGroup", "ReaderGone", "cli"}}


def definitions(tree: ast.Module) -> set[str]:
    """Return the public functions and classes that the module itself defines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {
        node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_is_true(path: Path) -> None:
    relative = path.relative_to(ROOT)
    parts = [part for part in relative.with_suffix("").parts if part != "__init__"]
    module = importlib.import_module(".".join(["nix_seed", *parts]))
    listed = list(getattr(module, "__all__", []))
    missing = [name for name in listed if not hasattr(module, name)]
    assert not missing, f"{relative}: __all__ names what is not there: {missing}"
    assert len(listed) == len(set(listed))
    public = definitions(ast.parse(path.read_text())) - PRIVATE.get(str(relative), set())
    assert public <= set(listed), f"{relative}: __all__ lacks {sorted(public - set(listed))}"
