"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.distribution import distribution as make_distribution


@pytest.fixture(scope="session")
def distribution() -> Path:
    """The demo flake of Debian packages; skips the test where it cannot be made."""
    return make_distribution()
