"""What the command prints goes through ``cli/say.py``, which makes foreign words harmless."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nix_seed

ROOT = Path(nix_seed.__file__).parent
MODULES = sorted((ROOT / "cli").rglob("*.py"))
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
        safe = "safe_text(" in words or "safe_line(" in words
        if bare and not table and not safe:
            yield node.lineno


def test_nothing_is_printed_as_it_is() -> None:
    found = {path: list(prints(ast.parse(path.read_text()))) for path in MODULES}
    wrong = {path: lines for path, lines in found.items() if lines and path.name not in DIRECT}
    assert not wrong, f"use say(): {wrong}"


def test_it_would_be_found() -> None:
    assert list(prints(ast.parse("print(x)\nclick.echo(y)\nsay(z)\nprint(safe_text(x))"))) == [1, 2]
