"""Which outputs are left out for which system, as people name them."""

from __future__ import annotations

import pytest

from nix_seed.core.errors import InputError
from nix_seed.flake.rules.choice import excluded_for


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ()),
        (["packages.docs", "checks", "packages.docs"], ("checks", "packages.docs")),
        (["packages.x86_64-linux.docs"], ("packages.docs",)),
        (["packages.aarch64-linux.docs", "checks.aarch64-darwin", "apps.i686-linux.x"], ()),
        (["checks.x86_64-linux", "formatter.x86_64-linux"], ("checks", "formatter")),
        (["packages.docs", "packages"], ("packages",)),
        (["packages.foo-bar", "packages.my-linux"], ("packages.foo-bar", "packages.my-linux")),
        (["packages.python3.11"], ("packages.python3.11",)),
        (["packages.x86_64-linux.python3.11"], ("packages.python3.11",)),
    ],
)
def test_names(names: list[str], found: tuple[str, ...]) -> None:
    assert excluded_for("x86_64-linux", names) == found


@pytest.mark.parametrize("name", ["", "packages.", ".docs", "packages.x86_64-linux."])
def test_what_names_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no output of a flake"):
        excluded_for("x86_64-linux", [name])
