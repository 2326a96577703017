"""What time a server thinks it is."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from nix_seed.clients.registry.patience import Patience
from nix_seed.clients.registry.transport import Transport
from nix_seed.rules.setup_checks import Reading

__all__ = ["read_clock"]


def read_clock(
    url: str,
    patience: Patience,
    *,
    plain: frozenset[str] = frozenset(),
    ca_file: str | None = None,
) -> Reading | None:
    """Ask *url* for anything; its ``Date`` (RFC 9110, 6.6.1) tells, whatever else it answers.

    None where it does not say. Half of the way there and back is taken for the way back.
    """
    transport = Transport(patience, os.environ, plain=plain, ca_file=ca_file)
    before = datetime.now(UTC)
    answer = transport.send("HEAD", url, {})
    after = datetime.now(UTC)
    date = answer.headers.get("Date")
    answer.close()
    try:
        there = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=UTC)
    return Reading(url.split("/")[2], before + (after - before) / 2, there)
