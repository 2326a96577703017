"""What a store owes: paths that its database calls valid while only a mount shows them.

The list is written before the database learns of the paths, and removed after all of them lie in
the store. So whatever dies in between, the next command knows what is lacking.
"""

from pathlib import Path
from typing import Final

from nix_seed.core import canonical_json
from nix_seed.core.errors import InputError
from nix_seed.core.files import read_regular, write_atomically
from nix_seed.formats.nix.store_path import StorePath

STATE: Final = "nix/.nix-seed-mount"
"""Where, below a root, everything lies that a mount of its store needs."""

_LARGEST: Final = 64 << 20


def state_directory(root: Path) -> Path:
    """Return the directory of what a mount below *root* needs, as the kernel names it."""
    return root.resolve() / STATE


def write_owed(root: Path, paths: frozenset[StorePath]) -> None:
    """Write down that *paths* are about to be called valid below *root*."""
    names = sorted(path.base_name for path in paths)
    write_atomically(state_directory(root) / "owed", canonical_json.dumps(names))


def read_owed(root: Path) -> frozenset[StorePath]:
    """Return the paths that the store below *root* owes, shown by a mount or not."""
    path = state_directory(root) / "owed"
    if not path.exists():
        return frozenset()
    value = canonical_json.loads(read_regular(path, _LARGEST), label=str(path))
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(
            f"{path} is not a list of store paths", hint="remove it, and hydrate again"
        )
    return frozenset(map(StorePath, value))
