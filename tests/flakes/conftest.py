"""Nix as every test of this directory asks it, in this process."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _settings(nix_settings: None) -> None:
    """Set Nix up in this process, too."""
