"""May ``latest`` name this commit's release? Not where a newer commit's has been promoted.

Jobs overlap, and old ones are run again: whichever ends last is not the newest.
"""

from __future__ import annotations

from collections.abc import Sequence

from nix_seed.flows.stores import Stores, find
from nix_seed.formats.intoto.commit import Commit
from nix_seed.formats.oci.reference import Reference

__all__ = ["why_latest_stays"]


def why_latest_stays(
    stores: Stores, repository: Reference, commit: Commit, newest: Sequence[str] | None
) -> str | None:
    """Return why ``latest`` must not move to the release of *commit*, None where it may.

    *newest* are the newest commits of the default branch, the newest first, as the forge has them
    now; None where it could not be asked. What is in doubt stays as it is.
    """
    if newest is None:
        return "origin could not be asked which commits of its default branch are newer"
    if commit.hex not in newest:
        return f"{commit} is none of the newest {len(newest)} commits of origin's default branch"
    for newer in newest[: newest.index(commit.hex)]:
        if find(stores, repository.at(newer)) is not None:
            return f"{newer}, which came after {commit}, is promoted already"
    return None
