"""The tag under which a subject's referrers are listed (distribution specification 1.1)."""

from __future__ import annotations

import re

from nix_seed.ground.digests import Digest

__all__ = ["fallback_tag", "lists_referrers"]

_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.[a-z]+)?\Z")


def fallback_tag(subject: Digest) -> str:
    """Return ``sha256-<hex>``, the tag of the subject's list of referrers."""
    return f"sha256-{subject.hex}"


def lists_referrers(tag: str | None) -> bool:
    """Whether *tag* is such a tag, or one of cosign's older kind (``….att``, ``….sig``)."""
    return tag is not None and _TAG.match(tag) is not None
