"""A file that would be written, and how that differs from what is there."""

import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FileState = Literal["new", "same", "kept", "replaced"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """The file *path* (relative, with slashes) is to hold *after*; None *before*: it is not there.

    *state* ``new`` and ``replaced`` are written; ``same`` need not be, and ``kept`` is
    not, since somebody changed what is there.
    """

    path: str
    before: str | None
    after: str
    state: FileState

    @property
    def writes(self) -> bool:
        """Whether the file is written."""
        return self.state in ("new", "replaced")

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff, as ``git apply`` reads it, without line ends."""
        before = _lines(self.before or "")
        old = "/dev/null" if self.before is None else f"a/{self.path}"
        for line in difflib.unified_diff(before, _lines(self.after), old, f"b/{self.path}"):
            yield line.removesuffix("\n")
            if not line.endswith("\n"):
                yield "\\ No newline at end of file"


def _lines(text: str) -> list[str]:
    # Not splitlines, which takes form feeds and their like for ends of lines.
    return list(io.StringIO(text, newline="\n"))


def change_of(path: str, before: str | None, after: str, *, force: bool) -> FileChange:
    """Return the change for a file that is written whole; *force* replaces what differs."""
    state: FileState = "new"
    if before is not None:
        state = "same" if before == after else "replaced" if force else "kept"
    return FileChange(path, before, after, state)
