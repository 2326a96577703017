"""Nix as every test of this directory asks it, in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.distribution import nix_env


@pytest.fixture(scope="module", autouse=True)
def _settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
            patch.setenv(name, nix_env()[name])
        yield
