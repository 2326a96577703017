"""What a registry asks of us: Basic, or Bearer tokens with scopes.

The token protocol is Docker's ("Token Authentication Specification"), which the distribution
specification leaves to convention: a 401 names a realm, a service and a scope, and the realm gives
a token that is good for some minutes.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import urlencode

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.values import dataclass
from nix_seed.registry.credentials import Credential
from nix_seed.registry.errors import Attempt, Patience, Unreachable, failure
from nix_seed.registry.http import REDIRECTS, Answer, Transport
from nix_seed.registry.rules.http import RegistryQuestion, Url, join_url, judge, parse_url, upgraded

_TOKEN_LIMIT = 1 << 20
_MOST_REDIRECTS = 5
# Those of ECR last 12 hours, of a job's GITHUB_TOKEN a job: less than what serves outputs runs.
_CREDENTIAL_LIFE = 600.0  # seconds
_DEFAULT_LIFE = 60.0  # seconds, where the realm does not say (the specification's own default)


@dataclass(frozen=True, slots=True, order=True)
class TokenScope:
    """What a request needs: *actions* (``pull``, ``push``) on a *repository*."""

    repository: str
    actions: tuple[str, ...] = ("pull",)

    def __str__(self) -> str:
        return f"repository:{self.repository}:{','.join(self.actions)}"

    @property
    def words(self) -> str:
        """The same for people: ``pull and push on o/r``."""
        return f"{' and '.join(self.actions)} on {self.repository}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header (RFC 9110, 11.6.1); names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    until: float  # on the monotonic clock
    challenge: Challenge


class TokenAuthority:
    """Keeps the tokens of one registry, one per set of scopes. Thread-safe."""

    def __init__(
        self,
        transport: Transport,
        patience: Patience,
        registry: str,
        find: Callable[[], Credential | None],
        home: Url,
    ) -> None:
        self._transport = transport
        self._patience = patience
        self._registry = registry
        self._find = find
        self._home = home
        self._lock = threading.Lock()
        self._tokens: dict[tuple[TokenScope, ...], _Token] = {}
        self._basic: str | None = None
        self._credential: Credential | None = None
        self._looked: float | None = None

    @property
    def who(self) -> str:
        """The identity in use, for messages."""
        return "anonymous" if self._credential is None else str(self._credential)

    def has_credential(self) -> bool:
        """Whether there is anything to log in with."""
        with self._lock:
            return self._load() is not None

    def attempt(self, doing: str, scopes: tuple[TokenScope, ...]) -> Attempt:
        """Describe, for errors, what is tried with whose rights; its secrets are never shown."""
        known = self._credential
        secrets = [token.header.partition(" ")[2] for token in self._tokens.values()]
        if known is not None:
            secrets += [known.password, known.bearer or "", known.identity_token or ""]
            secrets.append(known.basic().partition(" ")[2] if known.password else "")
        needs = " and ".join(scope.words for scope in scopes)
        return Attempt(doing, needs, self.who, tuple(secret for secret in secrets if secret))

    def header(self, scopes: tuple[TokenScope, ...]) -> str | None:
        """Return the ``Authorization`` to send now; None before the first challenge.

        A token whose time is over is replaced here: a stream sent with none would be sent in vain.
        """
        current, token = self._current(scopes), self._tokens.get(scopes)
        if current is None and token is not None:
            return self.answer([token.challenge], scopes, token.header)
        return current

    def _current(self, scopes: tuple[TokenScope, ...]) -> str | None:
        if self._basic is not None:
            return self._basic
        token = self._tokens.get(scopes)
        alive = token is not None and self._patience.monotonic() < token.until
        return token.header if token is not None and alive else None

    def answer(
        self, challenges: Iterable[Challenge], scopes: tuple[TokenScope, ...], refused: str | None
    ) -> str | None:
        """Return a new ``Authorization`` for a 401, None if there is none to try.

        *refused* is the one that was just rejected; it is never returned again. Of several
        threads that are challenged at once, one fetches the token and the others wait for it.
        """
        with self._lock:
            current = self._current(scopes)
            if current is not None and current != refused:
                return current
            credential = self._load()
            known = {challenge.scheme: challenge for challenge in challenges}
            if "bearer" in known:
                self._tokens.pop(scopes, None)
                try:
                    token = self._bearer(known["bearer"], scopes, credential)
                except Unreachable as error:
                    error.not_done = True  # the request itself was refused by its 401
                    raise
                self._tokens[scopes] = token
                return None if token.header == refused else token.header
            if "basic" in known and credential is not None and credential.password:
                self._basic = credential.basic()
                return None if self._basic == refused else self._basic
            return None

    def _load(self) -> Credential | None:
        """Return the credential; one found long ago is looked up again, for it may have expired."""
        now = self._patience.monotonic()
        if self._looked is None or now - self._looked > _CREDENTIAL_LIFE:
            self._credential, self._looked = self._find() or self._credential, now
        return self._credential

    def _bearer(
        self, challenge: Challenge, scopes: tuple[TokenScope, ...], credential: Credential | None
    ) -> _Token:
        if credential is not None and credential.bearer is not None:
            return _Token(f"Bearer {credential.bearer}", float("inf"), challenge)
        named = challenge.parameters.get("realm", "")
        if not named.lower().startswith(("http://", "https://")):
            raise CouldNotCheck(f"{self._registry} asks for a token, but not from where")
        realm = self._checked(parse_url(named, f"the token server of {self._registry},"))
        asked = self._patience.monotonic()
        answer = self._ask(realm, challenge, scopes, credential)
        if answer.status != 200:
            doing = f"asking {realm.netloc} for a token for {self._registry}"
            raise failure(
                self.attempt(doing, scopes),
                judge(RegistryQuestion.TOKEN, answer.status),
                answer.status,
                answer.headers,
                answer.read_error(),
                "the token server",
            )
        text, life = _read_token(answer.read(_TOKEN_LIMIT), self._registry)
        # A token that dies within the request is refreshed by its 401; this spares most of those.
        return _Token(f"Bearer {text}", asked + life * 0.9, challenge)

    def _checked(self, server: Url) -> Url:
        """Return where a token is asked for: from HTTPS nothing leads to plain HTTP."""
        server = upgraded(server, self._home)
        if self._home.scheme == "https" and server.scheme != "https":
            raise CouldNotCheck(
                f"{self._registry} leads from HTTPS to {server.scheme} for a token, which is "
                "refused"
            )
        return server

    def _send(
        self, method: str, url: Url, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Ask a token server, and whom it leads to: another host gets no credentials of ours."""
        for _ in range(_MOST_REDIRECTS):
            answer = self._transport.send(method, str(url), headers, body)
            target = answer.headers.get("Location")
            if answer.status not in REDIRECTS or target is None:
                break
            following = self._checked(join_url(url, target, "the token server's redirect to"))
            if following.origin != url.origin:
                if body is not None:
                    break
                headers = {}
            answer.close()
            url = following
        return answer

    def _ask(
        self,
        realm: Url,
        challenge: Challenge,
        scopes: tuple[TokenScope, ...],
        credential: Credential | None,
    ) -> Answer:
        service = challenge.parameters.get("service")
        names = _scope_names(scopes, challenge.parameters.get("scope", ""))
        about = [("service", service)] if service else []
        if credential is not None and credential.identity_token is not None:
            form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", credential.identity_token),
                ("client_id", "nix-seed"),
                ("scope", " ".join(names)),
                *about,
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._send("POST", realm, headers, urlencode(form).encode())
        query = urlencode([*about, *(("scope", name) for name in names)])
        url = parse_url(f"{realm}{'&' if '?' in realm.target else '?'}{query}")
        named = credential is not None and bool(credential.password)
        headers = {"Authorization": credential.basic()} if credential and named else {}
        return self._send("GET", url, headers)


def _scope_names(scopes: tuple[TokenScope, ...], challenged: str) -> list[str]:
    """Ours, and of the challenge's those that ours do not cover (a registry may want others)."""
    names = [str(scope) for scope in scopes]
    covered = {f"repository:{scope.repository}" for scope in scopes}
    return names + [name for name in challenged.split() if name.rpartition(":")[0] not in covered]


def _read_token(body: bytes | None, registry: str) -> tuple[str, float]:
    try:
        value: Any = json.loads(body or b"")
        token = value.get("token") or value.get("access_token")
        life = float(value.get("expires_in") or _DEFAULT_LIFE)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CouldNotCheck(f"the token server of {registry} answered no token") from error
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise CouldNotCheck(f"the token server of {registry} answered no token")
    return token, life


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Some quote no address, which RFC 9110 asks for, and some leave out a comma.
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|\Z|(?=,))")


# What stands in the place of parameters (RFC 9110, 11.2: token68).
_TICKET = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|\Z))")


def _after(text: str, position: int) -> int:
    """Return where the next word begins."""
    return len(text) - len(text[position:].lstrip(", \t"))


def parse_challenges(text: str) -> tuple[Challenge, ...]:
    """Read a ``WWW-Authenticate`` header; what cannot be read ends the list."""
    found: list[Challenge] = []
    position = 0
    while (scheme := _SCHEME.match(text, position)) is not None:
        parameters: dict[str, str] = {}
        position = scheme.end()
        if (ticket := _TICKET.match(text, position)) is not None:
            position = ticket.end()
        while (pair := _PARAMETER.match(text, position)) is not None:
            quoted = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
            parameters.setdefault(pair[1].lower(), quoted)
            position = _after(text, pair.end())
        found.append(Challenge(scheme[1].lower(), parameters))
        position = _after(text, position)
    return tuple(found)
