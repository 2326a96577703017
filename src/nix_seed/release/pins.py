"""Remembers under which root each commit was seen promoted, so that no second one passes here.

One file a commit, ``<hash of repository and commit key>.root``. A ledger proves what is in it, and
not that nothing else is: what this machine saw before is one more witness.
"""

import hashlib
from pathlib import Path

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.files import read_if_there, write_atomically
from nix_seed.formats.intoto.statement import Commit


class RootPins:
    """The roots kept in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def seen(self, repository: str, commit: Commit) -> Digest | None:
        """Return the root seen before; ``CouldNotCheck`` where its file is damaged."""
        path = self._path(repository, commit)
        text = read_if_there(path)
        if text is None:
            return None
        try:
            return Digest.parse(text.decode("utf-8", "replace").strip())
        except InputError as error:
            raise CouldNotCheck(
                f"the root seen before is damaged: {path}: {error.message}"
            ) from error

    def keep(self, repository: str, commit: Commit, root: Digest) -> None:
        """Remember *root*, unless one is remembered."""
        path = self._path(repository, commit)
        if not path.exists():
            write_atomically(path, f"{root}\n".encode())

    def _path(self, repository: str, commit: Commit) -> Path:
        name = hashlib.sha256(repository.encode() + b"\0" + commit.key.raw).hexdigest()
        return self._directory / f"{name}.root"
