"""A directory in which modules lie that are named as those that a program imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Of the standard library, of what the launcher starts, of ours and of what we need.
_NAMES = ("click", "ensurepip", "msgspec", "nix_seed", "pip", "rich", "sitecustomize", "venv")
_DONE = "planted module was run"


def plant_modules(directory: Path) -> None:
    """Lay a module of each name there that tells when it is run, and ends its program."""
    listed = subprocess.run(
        [sys.executable, "-IS", "-c", "import sys; print(*sys.stdlib_module_names)"],
        capture_output=True,
        text=True,
        check=True,
    )
    code = f"open({str(directory / _DONE)!r}, 'a').write(__name__ + ' ')\nraise SystemExit(9)\n"
    for name in (*_NAMES, *listed.stdout.split()):
        (directory / f"{name}.py").write_text(code)


def planted_that_ran(directory: Path) -> str:
    """Return the names of those that were run."""
    done = directory / _DONE
    return done.read_text() if done.exists() else ""
