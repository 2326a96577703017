"""The first line of ``verify``: verified, or not, for which commit of which source."""

from collections.abc import Iterator

from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import Commit
from nix_seed.release.rules.answer import Verification

_STARTS = {
    Fate.VERIFIED: "verified",
    Fate.FALSE: "not verified",
    Fate.UNCHECKED: "could not be verified",
}
_MOST = 3  # commits that the line names


def headline(found: Verification, source: str | None) -> str:
    """Return ``verified for commit C of SOURCE``, or that it is not; *source* is the policy's."""
    return " ".join((_STARTS[found.fate], about(found, source))).rstrip()


def about(found: Verification, source: str | None) -> str:
    """Return ``for commit C of SOURCE``, as far as that is known."""
    commits = list(answered(found))
    reason = ""
    if commits:
        shown = ", ".join(each.hex[:12] for each in commits[:_MOST])
        more = f" and {len(commits) - _MOST} more" if commits[_MOST:] else ""
        reason = f"for commit{'s' if commits[1:] else ''} {shown}{more}"
    return f"{reason} of {source}".strip() if source else reason


def other_commits(found: Verification) -> Iterator[str]:
    """Yield, of each commit that the answer is not about, what builders say of it: a line each.

    A seed is the same for many commits: that they agree on one hides no dissent on another.
    """
    mine = set(answered(found))
    for image in found.images:
        for quorum in image.quorums:
            if quorum.asked.commit not in mine and not quorum.met:
                system = f"{image.system}, " if len(found.images) > 1 else ""
                yield f"not for {system}commit {quorum.asked.commit.hex[:12]}: {quorum.reason}"


def answered(found: Verification) -> tuple[Commit, ...]:
    """Return the commits that the answer is about.

    That is the promoted one; else those of which every image has its quorum; else all asked about.
    """
    if found.promotion is not None:
        return (found.promotion.commit,)
    asked = dict.fromkeys(each.asked.commit for image in found.images for each in image.quorums)
    if found.fate is not Fate.VERIFIED:
        return tuple(asked)
    met = [{each.asked.commit for each in image.quorums if each.met} for image in found.images]
    return tuple(each for each in asked if all(each in commits for commits in met))
