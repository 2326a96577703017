"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler.loadscope import LoadScopeScheduling

from support import kinds, quick
from support.distribution import distribution as make_distribution, nix_env
from support.seeds import remove_tree

_NUMBERS = itertools.count()

# How long an example takes is the machine's doing. All else stays as it is, which is another in CI.
settings.register_profile("any machine", settings(), deadline=None)
settings.load_profile("any machine")

# What tests are spared, before any module is imported that takes hold of ``time.sleep``: another
# conftest.py may do so.
quick.start(new="PYTEST_XDIST_WORKER" not in os.environ)

# Modules and tests are hundreds of thousands of objects that stay: while they are made, nothing is
# gone that was worth a search, and later they are none of a search's business.
gc.set_threshold(50_000)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let the tests of a file, or of a directory, run in one process: they share what they made."""
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = kinds.scope
    return scheduler


def pytest_collection_finish() -> None:
    """Take what was collected out of every later search for circles."""
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare `make check` the import of what it would then deselect."""
    path = collection_path
    if not config.option.markexpr.startswith("check ") or path == kinds.TESTS:
        return None
    if path.parent == kinds.TESTS and path.is_dir():
        return None if kinds.has_checked(path) else True
    is_test = path.name.startswith("test_") and path.suffix == ".py"
    return True if is_test and not kinds.is_checked(path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` runs, and begin with what takes long."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: kinds.turn(item.path))
    for item in items:
        if kinds.is_checked(item.path):
            item.add_marker(pytest.mark.check)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Iterator[None]:
    """Remove what a fixture of a file made when the file is done, unless one of its tests failed.

    pytest does so at the end of all, and until then it would take gigabytes of memory.
    """
    if fixturedef.scope != "module" or "tmp_path_factory" not in fixturedef.argnames:
        return (yield)
    base = request.getfixturevalue("tmp_path_factory").getbasetemp()
    before, failed = set(os.listdir(base)), request.session.testsfailed
    made: list[Path] = []

    def remove() -> None:
        if request.session.testsfailed == failed:
            for each in made:
                remove_tree(each)

    # What is registered first is done last: after the fixture's own end.
    fixturedef.addfinalizer(remove)
    try:
        return (yield)
    finally:
        made += [base / name for name in os.listdir(base) if name not in before]


@pytest.fixture(autouse=True)
def _fsync(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give the tests of durability the ``fsync`` that all others are spared."""
    if request.node.get_closest_marker("fsync") is None:
        yield
        return
    with quick.durable():
        yield


@pytest.fixture(scope="session", autouse=True)
def _state_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what tests see of logs apart from what their user saw."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("state")
        patch.setenv("NIX_SEED_STATE", str(directory / "session"))
        yield directory


@pytest.fixture(autouse=True)
def _own_state(_state_of_all: Path) -> Iterator[None]:
    """Keep what tests see of logs apart from what others saw: worlds are copies of one another."""
    before = os.environ["NIX_SEED_STATE"]
    os.environ["NIX_SEED_STATE"] = str(_state_of_all / str(next(_NUMBERS)))
    yield
    os.environ["NIX_SEED_STATE"] = before


@pytest.fixture(autouse=True)
def _usual_recursion_limit(request: pytest.FixtureRequest) -> None:
    """Undo what the EVM's library does to the whole process where it is only collected."""
    if "evm" not in request.path.parts:
        sys.setrecursionlimit(1000)


@pytest.fixture(scope="session")
def distribution() -> Path:
    """The demo flake of Debian packages; skips the test where it cannot be made."""
    return make_distribution()


@pytest.fixture(scope="module")
def nix_settings() -> Iterator[None]:
    """Set Nix up in this process, too: else it waits for binary caches that it cannot reach."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
            patch.setenv(name, nix_env()[name])
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer cache for all images of a file; what a layer's key is decides what is reused."""
    return tmp_path_factory.mktemp("cache")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI nothing may be skipped: what a test needs is installed there (``.ci/run``)."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("NIX_SEED_TESTS_REQUIRE_ALL") and not _expected(report):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may be: {report.longrepr}"


def _expected(report: pytest.TestReport) -> bool:
    """A test that is known to fail, or that only another kind of machine can run."""
    return hasattr(report, "wasxfail") or "only on" in str(report.longrepr)
