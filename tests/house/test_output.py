"""What the command prints goes through ``cli/say.py``, which makes foreign words harmless."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nix_seed

ROOT = Path(nix_seed.__file__).parent
MODULES = sorted((ROOT / "cli").glob("*.py"))
# say.py itself; a shell's own script, which is click's.
DIRECT = {"say.py", "completion.py"}


def prints(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of calls that print by any other way, and with words not made harmless."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called, words = ast.unparse(node.func), ast.unparse(node)
        bare = called in ("print", "click.echo", "click.secho") or called.endswith("console.print")
        # A table's cells are escaped one by one.
        table = "_table(" in words or words == "console.print(table)"
        if bare and not table and "harmless" not in words:
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_nothing_is_printed_as_it_is(path: Path) -> None:
    found = list(prints(ast.parse(path.read_text())))
    assert path.name in DIRECT or not found, f"{path.name}: lines {found}: use say()"


def test_it_would_be_found() -> None:
    assert list(prints(ast.parse("print(x)\nclick.echo(y)\nsay(z)\nprint(harmless(x))"))) == [1, 2]
