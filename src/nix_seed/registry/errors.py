"""How a registry fails, mapped to the project's tree of errors.

::

    CouldNotCheck
    ├── Unreachable   no answer, or one that says "not now": worth another try
    └── Denied        401 and 403: the permission that lacks is named

A *wrong* answer (a digest that does not match) is ``CheckedFalse``, raised where it is found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from nix_seed.core.errors import CouldNotCheck, NixSeedError

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
# Answers that say by themselves that nothing was done, whatever the method was.
_NOT_DONE = frozenset({425, 429, 503})
_WORDS = 300  # characters of a foreign message that are shown


class Unreachable(CouldNotCheck):
    """The registry gave no usable answer; ``retry_after`` is what it asked us to wait, if it did.

    ``not_done`` says the request was certainly not carried out, so that repeating it is safe.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: str | None = None,
        not_done: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.not_done = not_done


class Denied(CouldNotCheck):
    """The registry wants other credentials (401) or more permission (403)."""


def retryable(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _TRY_AGAIN


def failure(
    doing: str, status: int, headers: Mapping[str, str], body: bytes, needs: str, who: str
) -> NixSeedError:
    """Return the error for an answer nobody expected.

    *doing* names the attempt (``"pushing a blob to ghcr.io/o/r"``), *needs* the permission it
    takes (``"pull on o/r"``), *who* the credentials that were used.
    """
    words = describe(body)
    said = f"{status}: {words}" if words else f"{status}"
    if status in {401, 403}:
        return Denied(
            f"{doing}: denied ({said}); it needs {needs}, as {who}",
            hint=_how_to_log_in(who),
        )
    if retryable(status):
        return Unreachable(
            f"{doing}: the registry answered {said}",
            hint="this is the registry's trouble; try again later",
            retry_after=headers.get("Retry-After"),
            not_done=status in _NOT_DONE,
        )
    return CouldNotCheck(f"{doing}: the registry answered {said}")


def describe(body: bytes) -> str:
    """Return the messages of an error document (distribution-spec, "Error Codes") in one line."""
    try:
        errors = json.loads(body)["errors"]
        found = [_one(error) for error in errors]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return _printable("; ".join(text for text in found if text))[:_WORDS]


def _one(error: dict[str, object]) -> str:
    parts = [str(error[key]) for key in ("code", "message") if error.get(key)]
    return " ".join(parts)


def _printable(text: str) -> str:
    # A registry's words reach a terminal: no control characters, no line breaks.
    return "".join(character if character.isprintable() else " " for character in text)


def _how_to_log_in(who: str) -> str:
    if who == "anonymous":
        return (
            "log in with `docker login`, `podman login` or --username/--password-stdin, or set "
            "NIX_SEED_REGISTRY_USERNAME and NIX_SEED_REGISTRY_PASSWORD"
        )
    return "these credentials lack the permission, or have expired; log in again or ask for it"
