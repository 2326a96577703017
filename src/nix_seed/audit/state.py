"""Where audits keep what they verified: one file a repository, in the directory of the state."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nix_seed.audit.rules.state import AuditState
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.files import explained, write_atomically


class AuditFiles:
    """The files in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, repository: str) -> AuditState | None:
        """Return what was kept; None before the first clean audit, or of another format."""
        path = self._path(repository)
        if not path.exists():
            return None
        with explained(f"reading {path}"):
            text = path.read_bytes()
        try:
            return AuditState.parse(text, str(path))
        except InputError as error:
            raise CouldNotCheck(
                f"what the last audit kept is damaged: {error.message}",
                hint=f"if nobody but you writes there, remove {path}: the next audit reads "
                "everything from the first entry on",
            ) from error

    def save(self, state: AuditState) -> None:
        """Keep *state* in place of what was kept."""
        write_atomically(self._path(state.repository), state.dump())

    @contextmanager
    def alone(self, repository: str) -> Iterator[None]:
        """Hold the repository's lock; ``CouldNotCheck`` where another audit does."""
        path = self._path(repository).with_suffix(".lock")
        with explained(f"locking {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CouldNotCheck(
                    f"another audit of {repository} is at work on {self._directory}",
                    hint="wait for it, or give this one a state of its own: --state DIR",
                ) from error
            yield
        finally:
            os.close(handle)

    def _path(self, repository: str) -> Path:
        return self._directory / f"{hashlib.sha256(repository.encode()).hexdigest()}.json"
