"""A CI job's log: a part that folds away for each stage, and failures where people look first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nix_seed.core.events import Stage

if TYPE_CHECKING:
    from nix_seed.core.errors import NixSeedError
    from nix_seed.core.processes import Tail
    from nix_seed.setup.ci_host import CiHost

# Stages that begin a part of the log; others are lines in it.
_PARTS = {
    "evaluate": "Evaluate the flake",
    "realise": "Build what the image is to hold",
    "assemble": "Write the layers",
    "unpack": "Prove the seed complete",
    "publish": "Push the image",
    "compare": "Attest the image",
    "verify": "Verify the image",
    "layers": "Fetch and unpack",
    "image": "Publish the index",
}
_TITLES = {1: "Checked, and false", 2: "Wrong input", 3: "Could not check", 4: "Nix failed"}


class Stages:
    """Listens to flows; used as a context, it ends the last part of the log."""

    def __init__(self, host: CiHost) -> None:
        self._host = host
        self._open = ExitStack()
        self._seen: set[str] = set()

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def __call__(self, event: Any) -> None:
        """Tell of *event*, if it is a stage."""
        if not isinstance(event, Stage):
            return
        if event.name in _PARTS and event.name not in self._seen:
            # Work that comes twice (attesting writes the layers again) is part of what it is for.
            self._seen.add(event.name)
            self._open.close()
            self._open.enter_context(self._host.group(_PARTS[event.name]))
        self._host.say(f"nix-seed: {event.text}")


@contextmanager
def reporting(
    host: CiHost, what: str, flake: Path, tail: Tail | None = None, *, writes: bool = True
) -> Iterator[None]:
    """Annotate the failure of *what*, if it fails, and end with its exit code.

    *writes*: it is to publish, so whom the registry turns away lacks the right to write.
    """
    from nix_seed.core.errors import NixSeedError

    try:
        yield
    except NixSeedError as error:
        error.hint = denied_hint(host, error, writes=writes) or error.hint
        _report(host, what, flake, error, "" if tail is None else tail.text)
        click.get_current_context().exit(error.exit_code)


def _report(host: CiHost, what: str, flake: Path, error: NixSeedError, said: str) -> None:
    from nix_seed.cli.say import error_lines
    from nix_seed.flake.checkout import find_line
    from nix_seed.setup.rules.ci_summary import Code, build_summary
    from nix_seed.setup.rules.ci_words import find_mismatches

    mismatches = find_mismatches(f"{said}\n{error.detail or ''}")
    for mismatch in mismatches:
        file, line = find_line(flake, mismatch.wanted) or (None, None)
        host.annotate("error", "Hash mismatch", str(mismatch), file=file, line=line)
    lines = list(error_lines(error))
    host.say("\n".join(lines))
    host.annotate("error", f"{what}: {_TITLES[error.exit_code]}", "\n".join(lines))
    found = tuple(str(mismatch) for mismatch in mismatches)
    told = tuple("\n".join(lines).splitlines())
    host.add_summary(build_summary(f"{what} failed", [Code("What went wrong", (*found, *told))]))


def denied_hint(host: CiHost, error: NixSeedError, *, writes: bool) -> str | None:
    """Name the permission that a job lacks whom the registry turned away."""
    from nix_seed.registry.errors import Denied

    if not isinstance(error, Denied):
        return None
    if host.kind == "github":
        return (
            f"give the job `permissions: packages: {'write' if writes else 'read'}` and the input "
            "registry_token: ${{ github.token }}; a package that another repository made must "
            "let this one in: its settings, Manage Actions access"
        )
    if host.kind == "gitlab":
        return (
            "set SEED_REGISTRY_USER: $CI_REGISTRY_USER and SEED_REGISTRY_TOKEN: "
            "$CI_REGISTRY_PASSWORD, or a deploy token that may "
            f"{'write' if writes else 'read'}_registry"
        )
    return (
        f"set SEED_REGISTRY_USER and SEED_REGISTRY_TOKEN to who may {'push' if writes else 'pull'}"
    )
