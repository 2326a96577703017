"""From the policy's logs to what writes to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nix_seed.clients.logs.base import Log
from nix_seed.clients.logs.embedded import EmbeddedLog
from nix_seed.ground.errors import CheckedFalse, InputError
from nix_seed.rules import policy as rules

__all__ = ["open_log", "open_logs"]


def open_logs(policy: rules.Policy, beside: Path) -> Sequence[Log]:
    """Return a writer for every log of *policy*, whose file lies in the directory *beside*."""
    return tuple(open_log(log, beside) for log in policy.logs)


def open_log(log: rules.Log, beside: Path) -> Log:
    """Return a writer for *log*: a directory's where its ``url`` has no scheme.

    ``InputError`` where the policy does not say where it is, ``CheckedFalse`` where what is there
    has another key.
    """
    if log.url is None:
        raise InputError(
            f"the policy does not say where the log {log.id} is",
            hint="add its url: a directory, or https://…",
        )
    if "://" in log.url:
        raise InputError(f"the log {log.id}: {log.url} is no directory on this machine")
    found = EmbeddedLog.open(beside / log.url)
    if found.trusted.key != log.key:
        raise CheckedFalse(
            f"the log in {log.url} has the key {found.trusted.key}, not the policy's for {log.id}"
        )
    return found
