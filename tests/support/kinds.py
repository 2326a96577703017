"""Tells what kind of test each is, for `make check`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

# Who imports one of these starts a program or a server, or may.
_OUTSIDE = frozenset(
    {"asyncio", "http", "multiprocessing", "playwright", "socket", "subprocess", "threading"}
    | {"support.distribution", "support.registries", "web3", "eth_tester"}
)

# These judge foreign bytes, need no more than a moment, and start hardly anything.
_ALSO_CHECKED = (
    "attacks/test_attacks.py",
    "core/test_canonical_json.py",
    "core/test_digests.py",
    "formats/test_database.py",
    "formats/test_intoto.py",
    "formats/test_nar.py",
    "formats/test_registration.py",
    "formats/test_seekable.py",
    "formats/test_tar.py",
    "image/test_layer.py",
    "image/test_spec.py",
    "logs/test_log_verify.py",
    "logs/test_state.py",
    "release/test_verify.py",
    "roots/test_roots.py",
    "setup/test_contract.py",
    "setup/test_init_rules.py",
    "trust/test_verify.py",
    "trust/test_verify_keyless.py",
    "trust/test_watch.py",
)

# Reading the syntax of each file would take longer than the tests of some.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^(\n]*)|import[ \t]+([^\n#(]+))",
    re.MULTILINE,
)

# Files, and directories whose files take longest, longest first.
_LONG = (
    "story/test_container.py", "story/test_tutorial.py", "logs/test_rekor_v1.py",
    "engines", "evm", "docs", "action", "arm64", "story", "flakes", "report", "use", "mount",
    "outputs", "bench", "image", "licences", "sbom", "logs", "cli", "examples", "release",
    "registry", "attacks", "audit", "fuzz", "sim",
)  # fmt: skip

# What tests of these directories share takes longest to start: engines that hold images, chains.
_TOGETHER = ("engines", "evm")


def scope(nodeid: str) -> str:
    """Which tests stay in one process, in their order: a file's, or a directory's."""
    path = nodeid.partition("::")[0]
    directory = path.removeprefix("tests/").partition("/")[0]
    return directory if directory in _TOGETHER else path


def turn(path: Path) -> int:
    """When a file's tests begin: a long file that begins last keeps one process waiting."""
    name = path.relative_to(TESTS)
    found = (_LONG.index(each) for each in (str(name), name.parts[0]) if each in _LONG)
    return next(found, len(_LONG))


def has_checked(directory: Path) -> bool:
    """Whether `make check` runs anything of a directory of tests."""
    return any(is_checked(path) for path in directory.rglob("test_*.py"))


def is_checked(path: Path) -> bool:
    """Whether `make check` runs a test module's tests, but for those marked slow."""
    return is_pure(path) or str(path.relative_to(TESTS)) in _ALSO_CHECKED


@cache
def is_pure(path: Path) -> bool:
    """Whether a test module, and all of the tests' own modules behind it, stay in the process."""
    fixtures = path.with_name("conftest.py")
    given = (path, fixtures) if fixtures.is_file() else (path,)
    return not any(_reaches_outside(module) for first in given for module in _behind(first))


def _reaches_outside(path: Path) -> bool:
    return any(name in _OUTSIDE or name.split(".")[0] in _OUTSIDE for name in _imports(path))


@cache
def _behind(path: Path) -> frozenset[Path]:
    """Return *path* with the tests' own modules that it imports, and those that they import."""
    found = {path}
    todo = [path]
    while todo:
        for name in _imports(todo.pop()):
            module = TESTS / (name.replace(".", "/") + ".py")
            if module not in found and module.is_file():
                found.add(module)
                todo.append(module)
    return frozenset(found)


@cache
def _imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports anywhere, and what it takes from each."""
    found: set[str] = set()
    for module, taken, plain in _IMPORT.findall(path.read_text()):
        found.update(name.split()[0] for name in plain.split(",") if name.strip())
        if module:
            names = (name.split("#")[0].strip(" ()\n") for name in re.split(r"[,\n]", taken))
            found.add(module)
            found.update(f"{module}.{name.split()[0]}" for name in names if name)
    return frozenset(found)
