"""Where audits keep what they verified: one file a repository, in the directory of the state."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from nix_seed.audit.rules.state import AuditState
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.files import explained, locked, read_if_there, write_atomically

_LARGEST: Final = 1 << 30  # bytes: some millions of releases


class AuditFiles:
    """The files in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, repository: str) -> AuditState | None:
        """Return what was kept; None before the first clean audit, or of another format."""
        path = self._path(repository)
        text = read_if_there(path, _LARGEST)
        if text is None:
            return None
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
            with ExitStack() as held:
                try:
                    held.enter_context(locked(path, wait=False))
                except BlockingIOError as error:
                    raise CouldNotCheck(
                        f"another audit of {repository} is at work on {self._directory}",
                        hint="wait for it, or give this one a state of its own: --state DIR",
                    ) from error
                yield

    def _path(self, repository: str) -> Path:
        return self._directory / f"{hashlib.sha256(repository.encode()).hexdigest()}.json"
