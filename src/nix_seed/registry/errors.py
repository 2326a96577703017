"""How a registry fails, mapped to the project's tree of errors.

::

    CouldNotCheck
    ├── Unreachable   no answer, or one that says "not now": worth another try
    ├── Denied        401 and 403: the permission that lacks is named
    └── NotTaken      a manifest was refused in a way that another one might not be

A *wrong* answer (a digest that does not match) is ``CheckedFalse``, raised where it is found.

When to ask again, and how long to wait for an answer.
"""

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.events import Waiting, tell
from nix_seed.core.values import dataclass
from nix_seed.registry.rules import http

# Answers that say by themselves that nothing was done, whatever the method was.
_NOT_DONE = frozenset({425, 429, 503})
# What a manifest names was sent before it. A store that settles late, or another job that sends the
# same at this moment, has it look absent for a while.
_NOT_YET = frozenset({"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"})
_NO_ROOM = 507
_IS_FULL = re.compile(r"quota|storage (?:limit|resource)|no space left|insufficient storage", re.I)
_FULL = "there is no room for it: delete what is old there, or have the limit raised"
_INVALID = "MANIFEST_INVALID"
_PAGE = (
    "a web page is no registry's answer: it is a login's or a proxy's. See what a browser shows at"
    " the registry, and check its name, HTTPS_PROXY and NO_PROXY"
)
_LOG_IN = (
    "log in with `docker login`, `podman login` or --username/--password-stdin, or set "
    "NIX_SEED_REGISTRY_USERNAME and NIX_SEED_REGISTRY_PASSWORD"
)
_LOG_IN_AGAIN = "these credentials are wrong or expired, or lack the permission: log in again"
_NO_REGISTRY = (
    "that is no registry's answer: see that one is at HOST/v2/, for one below a path of its host"
    " cannot be named; or create the repository first, or name its owner: HOST/OWNER/NAME"
)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,300})", re.I)
_WORDS = 300  # characters of a foreign message that are shown
_SHORTEST_SECRET = 6


class Unreachable(CouldNotCheck):
    """The registry gave no usable answer; ``retry_after`` are the seconds it asked to wait, if any.

    ``not_done`` says the request was certainly not carried out, so that repeating it is safe;
    ``given_up`` that it was repeated until patience ended.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        not_done: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after
        self.not_done = not_done
        self.given_up = False


class Denied(CouldNotCheck):
    """The registry wants other credentials (401) or more permission (403)."""


class NotTaken(CouldNotCheck):
    """The registry did not take a manifest as it was named: its tag may be immutable."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried: *doing* (``"pushing a blob to ghcr.io/o/r"``), needing a permission.

    *needs* names it (``"pull on o/r"``), *identity* the credentials that were used, and *secrets*
    what of them is never shown.
    """

    doing: str
    needs: str
    identity: str
    secrets: tuple[str, ...] = ()


def retryable(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in http.LATER


def failure(
    attempt: Attempt,
    rule: http.Rule,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    who: str,
) -> NixSeedError:
    """Return the error for an answer that settles nothing; *who* gave it, *rule* says what it is.

    Where another way was tried in vain, the rule's words are the hint.
    """
    words = describe(body, attempt.secrets)
    said = f"{status}: {words}" if words else f"{status}"
    doing = attempt.doing
    if rule.meaning is http.Meaning.LATER:
        limited = status == 429 and attempt.identity == "anonymous"
        return Unreachable(
            f"{doing}: {who} answered {said}",
            hint="it limits what strangers may ask; log in, or try again later"
            if limited
            else "this is the registry's trouble; try again later",
            retry_after=asked_to_wait(headers),
            not_done=status in _NOT_DONE,
        )
    # What limits a request, or asks for a password, says what it wants by its status.
    page = http.is_page(headers) and status != 413 and "WWW-Authenticate" not in headers
    if status in {401, 403} and not rule.by_storage:
        answered = f"{who} answered {said}" if page else f"denied ({said})"
        hint = _LOG_IN if attempt.identity == "anonymous" else _LOG_IN_AGAIN
        return Denied(
            f"{doing}: {answered}; it needs {attempt.needs}, as {attempt.identity}",
            hint=_FULL if _IS_FULL.search(words) else _PAGE if page else hint,
        )
    if rule.question is http.RegistryQuestion.TAKE_MANIFEST and not _NOT_YET.isdisjoint(
        _codes(body)
    ):
        return Unreachable(
            f"{doing}: {who} answered {said}",
            hint="it does not find what was sent before: try again later",
            not_done=True,
        )
    kind = NotTaken if rule.meaning is http.Meaning.OTHER_WAY else CouldNotCheck
    hint = rule.said
    if status == _NO_ROOM or _IS_FULL.search(words):
        hint = _FULL
    elif page:
        hint = _PAGE
    elif status == 404 and rule.question is http.RegistryQuestion.WRITE and not _errors(body):
        hint = _NO_REGISTRY
    elif rule.question is http.RegistryQuestion.TAKE_MANIFEST and _INVALID in _codes(body):
        hint = http.UNKNOWN_KIND
    return kind(f"{doing}: {who} answered {said}", hint=hint or None)


def is_registrys(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether an answer shows that a registry gave it: by its header, or an error document."""
    return "Docker-Distribution-Api-Version" in headers or bool(_errors(body))


def no_registry(doing: str, status: int, base: str) -> CouldNotCheck:
    """Return the error for an answer that any web server might have given."""
    return CouldNotCheck(
        f"{doing}: {status} was answered, but not by a registry: none is at {base}/v2/",
        hint="check the registry's name and port; one below a path of its host cannot be named",
    )


def describe(body: bytes, secrets: tuple[str, ...] = ()) -> str:
    """Return the messages of an error document (distribution-spec, "Error Codes") in one line.

    Or the title of a web page. Empty for what is neither; nothing of one that repeats one of
    *secrets*.
    """
    found = [
        " ".join(str(error[key]) for key in ("code", "message") if isinstance(error.get(key), str))
        for error in _errors(body)
    ] or [_title(body)]
    # A registry's words reach a terminal: no control characters, no line breaks.
    text = "".join(
        character if character.isprintable() else " "
        for character in "; ".join(text for text in found if text)
    )
    if any(len(secret) >= _SHORTEST_SECRET and secret in text for secret in secrets):
        return "its words repeat our credentials, and are not shown"
    return text[:_WORDS]


def _errors(body: bytes) -> list[dict[str, object]]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return []
    errors = value.get("errors") if isinstance(value, dict) else None
    return [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []


def _title(body: bytes) -> str:
    from html import unescape

    found = _TITLE.search(body.decode(errors="replace"))
    return " ".join(unescape(found[1]).split()) if found else ""


def _codes(body: bytes) -> list[str]:
    return [str(error.get("code")) for error in _errors(body)]


T = TypeVar("T")


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` names (RFC 9110, 10.2.3), itself or by a date.

    A date is of the server's clock, which is told beside it. This machine's may be wrong.
    """
    text = (headers.get("Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until, now = _moment(text), _moment(headers.get("Date") or "")
    return None if until is None else max(0.0, until - (time.time() if now is None else now))


def _moment(text: str) -> float | None:
    try:
        return http.date(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits in seconds, and the chance, the sleep and the clock they are measured with.

    ``connect``: to open a connection, and for one that takes no more of what we send. ``stall``:
    for the next byte of an answer. ``settle``: for the answer to a finished upload, which some
    registries hash first. ``longest_asked``: the most that a ``Retry-After`` is honoured for; a
    server that wants longer is reported at once rather than slept for.
    """

    attempts: int = 5
    base: float = 0.4
    longest: float = 20.0
    longest_asked: float = 120.0
    connect: float = 15.0
    stall: float = 30.0
    settle: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic

    def delay(self, attempt: int, asked: float | None = None) -> float | None:
        """Return how long to wait after failed *attempt* (0 is the first), None to give up.

        Exponential with full jitter; what a server *asked* for is never undercut.
        """
        if attempt + 1 >= self.attempts:
            return None
        backoff: float = min(self.longest, self.base * 2**attempt) * self.chance()
        if asked is None:
            return backoff
        return None if asked > self.longest_asked else asked + backoff

    def retry(self, work: Callable[[], T], *, safe: bool = True) -> T:
        """Do *work* until it succeeds, fails for good, or patience ends.

        What is not *safe* to repeat is done again only if it was certainly not carried out. What
        was given up inside of *work* is not begun anew.
        """
        attempt = 0
        while True:
            try:
                return work()
            except Unreachable as error:
                if error.given_up or not (safe or error.not_done):
                    raise
                if not self.outwait(error, attempt):
                    error.given_up = True
                    raise
                attempt += 1

    def outwait(self, error: Unreachable, attempt: int) -> bool:
        """Wait as is right after failed *attempt*, and tell it; False where patience ends."""
        delay = self.delay(attempt, error.retry_after)
        if delay is None:
            return False
        tell(Waiting(error.message, delay))
        self.sleep(delay)
        return True
