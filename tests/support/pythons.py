"""Other Pythons than the one that runs the tests: the machine's own, or Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from support.apt import packages, with_dependencies
from support.programs import need
from support.steps import ROOT

# What the launcher takes besides 3.11; Debian's suites have but some of them.
OTHERS = ("3.12", "3.13", "3.14")
_SUITES = {"3.13": "trixie", "3.14": "sid"}
_RUNNERS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ruamel.yaml")


@dataclass(frozen=True)
class Python:
    """A Python, and a directory of *packages* for it: nix-seed's, as locked, and pytest."""

    program: Path
    packages: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it with these *arguments*, on this checkout."""
        path = os.pathsep.join([str(ROOT / "src"), str(self.packages)])
        outer = {key: text for key, text in os.environ.items() if not key.startswith("PYTEST_")}
        env = outer | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [self.program, *arguments]
        return subprocess.run(
            command, env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )


def other_python(name: str, packages_in: Path) -> Python:
    """Return Python *name* (``3.13``), with packages in *packages_in*; without it, skip."""
    program = next(_of_this_machine(name), None) or _of_debian(name)
    runners = [f"{each}=={version(each)}" for each in _RUNNERS]
    locked = ("--no-deps", "--require-hashes", "--requirement", ROOT / "bin/requirements.txt")
    for wanted in (locked, runners):
        done = subprocess.run(
            [
                *(need("uv"), "pip", "install", "--no-config", "--quiet", "--only-binary", ":all:"),
                *("--python", program, "--target", packages_in, *wanted),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if "error sending request" in done.stderr or "Failed to fetch" in done.stderr:
            pytest.skip("needs a package index within reach")
        assert done.returncode == 0, done.stderr
    return Python(program, packages_in)


def _of_this_machine(name: str) -> Iterator[Path]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    cached = Path(os.environ.get("RUNNER_TOOL_CACHE", "/opt/hostedtoolcache"))
    on_path = shutil.which(f"python{name}")
    yield from [Path(on_path)] if on_path and "/shims/" not in on_path else []
    yield from pyenv.glob(f"versions/{name}.*[0-9]/bin/python3")
    yield from cached.glob(f"Python/{name}.*/*/bin/python3")


def _of_debian(name: str) -> Path:
    if name not in _SUITES:
        pytest.skip(f"runs only on a machine with Python {name}")
    suite, wanted = _SUITES[name], (f"python{name}", "lib", "zlib1g")
    every = with_dependencies(suite, f"python{name}")
    root = packages(suite, *(e for e in every if e.startswith(wanted) and "perl" not in e))
    made = root / f"usr/bin/python{name}-here"
    if not made.exists():
        # With its own libraries and loader, beside whatever the system has.
        libraries = next(root.glob("usr/lib/*-linux-gnu*"))
        partial = made.with_name(f".partial-{os.getpid()}")
        shutil.copy(root / f"usr/bin/python{name}", partial)
        loader = next(libraries.glob("ld-linux*"))
        patch = (need("patchelf"), "--set-interpreter", str(loader), "--force-rpath")
        subprocess.run([*patch, "--set-rpath", str(libraries), str(partial)], check=True)
        partial.rename(made)
    return made
