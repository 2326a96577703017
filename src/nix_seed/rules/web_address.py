"""Which texts are web addresses that a document may carry as a link (RFC 3986)."""

from __future__ import annotations

import re

__all__ = ["is_web_address"]

_WEB = re.compile(
    r"(?:https?|ftp)://[A-Za-z0-9.-]+(?::[0-9]{1,5})?"
    r"(?:[/?#](?:[A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})*)?\Z"
)
_LONGEST = 2000


def is_web_address(text: str) -> bool:
    """Whether *text* is one, and in plain spelling: no user, no blanks, nothing but ASCII."""
    return len(text) <= _LONGEST and text.count("#") <= 1 and _WEB.match(text) is not None
