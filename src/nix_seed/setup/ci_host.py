"""The CI service a job runs in: its event, its log, its outputs, its summary. Files and lines only.

On GitHub everything goes to standard error, where Nix writes as well, so that the runner reads all
of it in order; and while anything foreign may be printed, the runner is told to take no commands.
How to have a ``/nix`` to write to, which a fresh runner lacks, is found here, too.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

from nix_seed.core.errors import InputError
from nix_seed.core.files import explained
from nix_seed.core.safe_text import safe_text
from nix_seed.setup.rules.ci_inputs import host_of
from nix_seed.setup.rules.ci_words import Level, annotation, end_group, output_lines, start_group

_LARGEST_EVENT = 32 << 20
# Where each kind of value is written: GitHub's file, and the one that other services' users name.
_OUTPUTS = {"github": "GITHUB_OUTPUT", "gitlab": "SEED_OUTPUTS", "other": "SEED_OUTPUTS"}


class CiHost:
    """Speaks to the service that *environ* says this is; *stream* is the job's log."""

    def __init__(self, environ: Mapping[str, str] = os.environ, stream: TextIO | None = None):
        self.environ = environ
        self.kind = host_of(environ)
        self._stream = stream
        self._depth = 0
        self._kept: list[str] = []

    @property
    def setup_seconds(self) -> float | None:
        """What ``bin/nix-seed`` took to set itself up in this job; None where it had been already.

        Measured by the launcher, or passed on from the step in which it ran first.
        """
        try:
            return float(self.environ.get("NIX_SEED_SETUP_SECONDS", ""))
        except ValueError:
            return None

    def event(self) -> Any:
        """Return the payload of GitHub's event, None where there is none that can be read."""
        path = self.environ.get("GITHUB_EVENT_PATH")
        if self.kind != "github" or not path:
            return None
        try:
            with open(path, "rb") as file:
                return json.loads(file.read(_LARGEST_EVENT))
        except (OSError, ValueError, RecursionError):
            # What it would have allowed stays forbidden.
            return None

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Have what is printed meanwhile fold away under *title*, and none of it be a command."""
        key = "nix_seed_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in title)[:60]
        token = secrets.token_hex(16)
        self._print(start_group(title, key, int(time.time()))[self.kind])
        if self.kind == "github":
            self._print(f"::stop-commands::{token}")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self.kind == "github":
                self._print(f"::{token}::")
            self._print(end_group(key, int(time.time()))[self.kind])
            if self._depth == 0:
                kept, self._kept = self._kept, []
                for line in kept:
                    self._print(line)

    def say(self, text: str) -> None:
        """Print *text* to the log, harmless."""
        self._print(safe_text(text))

    def annotate(
        self,
        level: Level,
        title: str,
        text: str,
        *,
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        """Show *text* where people look first; in a plain log where there is no such place."""
        if self.kind == "github":
            shown = annotation(level, title, text, file=file, line=line)
        else:
            at = "" if file is None else f" ({file}:{line})"
            shown = safe_text(f"{level}: {title}{at}: {text}")
        if self._depth and self.kind == "github":
            self._kept.append(shown)
        else:
            self._print(shown)

    def set_outputs(self, values: Mapping[str, str]) -> None:
        """Set the step's outputs: GitHub's, or lines ``SEED_NAME=value`` of a dotenv file."""
        text = ""
        for name, value in values.items():
            if self.kind == "github":
                text += output_lines(name, value, f"end_{secrets.token_hex(16)}")
            elif "\n" in value or "\r" in value:
                raise InputError(f"the output {name} has several lines, which a dotenv cannot hold")
            else:
                text += f"SEED_{name.upper()}={value}\n"
        self._append(self.environ.get(_OUTPUTS[self.kind]), text)

    def set_variables(self, values: Mapping[str, str], path: Path | None) -> None:
        """Set variables for the steps that follow, and put *path* before what is on PATH.

        Elsewhere than on GitHub: write a shell file, named by ``SEED_ENV``, to be sourced.
        """
        if self.kind == "github":
            text = "".join(
                output_lines(name, value, f"end_{secrets.token_hex(16)}")
                for name, value in values.items()
            )
            self._append(self.environ.get("GITHUB_ENV"), text)
            if path is not None:
                self._append(self.environ.get("GITHUB_PATH"), f"{path}\n")
            return
        lines = [f"export {name}={_quoted(value)}" for name, value in values.items()]
        if path is not None:
            lines.append(f'export PATH={_quoted(str(path))}:"$PATH"')
        self._append(self.environ.get("SEED_ENV"), "".join(f"{line}\n" for line in lines))

    def add_summary(self, markdown: str) -> None:
        """Show *markdown* on the run's page; elsewhere in the file that ``SEED_SUMMARY`` names."""
        name = "GITHUB_STEP_SUMMARY" if self.kind == "github" else "SEED_SUMMARY"
        self._append(self.environ.get(name), markdown)

    def _append(self, path: str | None, text: str) -> None:
        if path and text:
            with explained(f"writing to {path}"), open(path, "a", encoding="utf-8") as file:
                file.write(text)

    def _print(self, line: str) -> None:
        if line:
            print(line, file=self._stream or sys.stderr, flush=True)


def _quoted(text: str) -> str:
    """Quote for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


StoreState = Literal["ours", "roots", "absent"]
"""We may write to it; only root may (there is a daemon); there is none yet."""


def store_state(root: Path = Path("/")) -> StoreState:
    """Say how ``/nix`` stands to the user who asks."""
    store = root / "nix/store"
    if store.is_dir():
        database = root / "nix/var/nix/db"
        writable = os.access(store, os.W_OK) and (
            not database.exists() or os.access(database, os.W_OK)
        )
        return "ours" if writable else "roots"
    nix = root / "nix"
    writable = os.access(nix, os.W_OK) if nix.is_dir() else os.access(root, os.W_OK)
    return "ours" if writable else "absent"


def make_store_for(user: int, root: Path = Path("/")) -> None:
    """As root, make an empty ``/nix`` that belongs to *user* (a number); done already, nothing.

    On macOS that takes a volume of its own. A store that is there is nobody's to give away.
    """
    from nix_seed.use.macos_store import ensure_store

    ensure_store(root)
    nix = root / "nix"
    with explained(f"making {nix}"):
        nix.mkdir(mode=0o755, exist_ok=True)
        if not (nix / "store").exists():
            os.chown(nix, user, -1)
