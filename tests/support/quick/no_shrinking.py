"""A pytest plugin for ``tools/break-it``: any failing example is enough, not the smallest."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Take the profile that conftest.py loaded, without the search for a smaller example."""
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("break it", settings(), phases=phases, derandomize=True)
    settings.load_profile("break it")
