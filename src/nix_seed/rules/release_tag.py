"""Which tags a release may be given: none that says something else than which release it is."""

from __future__ import annotations

import re
from typing import Final

from nix_seed.formats.intoto.commit import Commit, is_commit
from nix_seed.formats.oci.reference import check_tag
from nix_seed.formats.oci.referrers import lists_referrers
from nix_seed.ground.errors import InputError

__all__ = ["check_release_tag"]

_OF_SYSTEM: Final = re.compile(r"([0-9a-f]+)-[0-9a-z_]+-[0-9a-z]+\Z")


def check_release_tag(tag: str, commit: Commit, where: str) -> None:
    """Raise ``InputError`` unless *tag* may name the release of *commit*.

    What is listed beside a digest would be lost where a release took its tag. That of another
    commit, or of one system's image, would name what it does not say.
    """
    check_tag(tag, where)
    if lists_referrers(tag):
        raise _refused(tag, "it names what is listed beside a digest")
    if is_commit(tag) and tag != str(commit):
        raise _refused(tag, f"it names the release of another commit than {commit}")
    found = _OF_SYSTEM.match(tag)
    if found is not None and is_commit(found[1]):
        raise _refused(tag, "it names one system's image")


def _refused(tag: str, why: str) -> InputError:
    return InputError(
        f"a release cannot be given the tag {tag}: {why}",
        hint="name another tag, such as latest or v1.2; the commit's own is given always",
    )
