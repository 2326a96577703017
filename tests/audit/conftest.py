"""One ledger of three releases, made once; each test has a copy of its own to spoil."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.audits import Ledger


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger.fresh(tmp_path_factory.mktemp("ledger"))


@pytest.fixture
def ledger(pristine: Ledger, tmp_path: Path) -> Ledger:
    return pristine.moved(tmp_path / "world")
