"""Parts of the page that GitHub shows of a CI job, which several steps have."""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.cli.lazily import lazily
from nix_seed.setup.rules.ci_words import verbatim

with lazily():
    from nix_seed.cli.release import verify
    from nix_seed.release.rules import answer as answers


def reproduce(commit: str | None, *commands: str) -> str:
    """Return the commands that do the same on anyone's machine."""
    first: Sequence[str] = () if commit is None else (f"git checkout {commit}",)
    return verbatim("The same on your machine", (*first, *commands))


def verification_part(found: answers.Verification) -> str:
    """Return every check of the answer *found*."""
    return verbatim("Verification", tuple(verify.verification_lines(found)))
