"""Requests to one registry: challenges answered, redirects followed, trouble waited out.

* Credentials go to the registry's own origin and to the token server it names, and nowhere else: a
  redirect or an upload location on another host gets none.
* What is safe is tried again: requests that change nothing or do the same twice, and any request
  whose answer says that it was not carried out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

from nix_seed.core.errors import CouldNotCheck
from nix_seed.registry.auth import Authority, Scope, parse_challenges
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import failure
from nix_seed.registry.http import Answer, NotTLS, Patience, Transport, is_loopback, origin

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_HOST = "registry-1.docker.io"

T = TypeVar("T")
Body = Callable[[], bytes | Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. *url* is absolute, or a path below ``/v2/``; *body* makes a fresh body a try.

    *doing* is what errors say was tried, *scopes* the permissions it takes, *expect* the statuses
    that are answers. *safe*: may be repeated although an earlier try may have been carried out.
    """

    method: str
    url: str
    doing: str
    scopes: tuple[Scope, ...]
    expect: frozenset[int]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    safe: bool = True
    settle: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer read to its end. ``body`` is None where it was longer than was allowed."""

    status: int
    headers: Mapping[str, str]
    url: str
    body: bytes | None


class Session:
    """Speaks to *registry* (``host[:port]``). Thread-safe."""

    def __init__(
        self,
        registry: str,
        keyring: Keyring,
        *,
        patience: Patience,
        plain_http: bool = False,
        ca_file: str | None = None,
    ) -> None:
        self.registry = registry
        self.patience = patience
        self._host = _DOCKER_HUB_HOST if registry == _DOCKER_HUB else registry
        self._keyring = keyring
        self._plain_http = plain_http
        self._transport = Transport(
            patience,
            keyring.environ,
            plain=frozenset({self._host}) if plain_http else frozenset(),
            ca_file=ca_file,
        )
        self._authorities: dict[str, Authority] = {}
        self._base: str | None = None
        self._lock = threading.Lock()

    def call(self, request: Request, *, limit: int = 1 << 20) -> Reply:
        """Send *request* and read its answer, of at most *limit* bytes; tries again where safe."""
        return self.retry(lambda: self._once(request, limit), safe=request.safe)

    def retry(self, work: Callable[[], T], *, safe: bool) -> T:
        """Do *work* until it succeeds, fails for good, or patience ends."""
        return self.patience.retry(work, safe=safe)

    def open(self, request: Request) -> Answer:
        """Send *request* once and return the answer with its body still on the wire."""
        answer = self._authorized(request)
        if answer.status in request.expect:
            return answer
        needs = " and ".join(scope.words for scope in request.scopes)
        body = answer.read_error()
        who = self._authority(request).who
        raise failure(request.doing, answer.status, answer.headers, body, needs, who)

    def base(self) -> str:
        """Return ``https://host``, or ``http://host`` where that is allowed and all there is."""
        with self._lock:
            if self._base is None:
                self._base = self.retry(self._find_base, safe=True)
            return self._base

    def _find_base(self) -> str:
        if self._plain_http:
            return f"http://{self._host}"
        host = urlsplit(f"//{self._host}").hostname or ""
        if is_loopback(host):
            # Only a server that answers, and not in TLS, is spoken to in plain HTTP. A certificate
            # that is not accepted stays an error.
            try:
                self._transport.send("GET", f"https://{self._host}/v2/", {}).close()
            except NotTLS:
                return f"http://{self._host}"
        return f"https://{self._host}"

    def _once(self, request: Request, limit: int) -> Reply:
        answer = self.open(request)
        body = b"" if request.method == "HEAD" else answer.read(limit)
        answer.close()
        return Reply(answer.status, answer.headers, answer.url, body)

    def _authorized(self, request: Request) -> Answer:
        url = urljoin(self.base() + "/v2/", request.url)
        authority = self._authority(request)
        ours = origin(url) == origin(self.base())
        sent = authority.header(request.scopes) if ours else None
        # Two rounds: one for a first challenge or an expired token, one for a token that another
        # thread's narrower request had put in its place.
        for _ in range(2):
            answer = self._follow(request, url, sent)
            if answer.status != 401 or origin(answer.url) != origin(self.base()):
                return answer
            challenges = parse_challenges(answer.headers.get("WWW-Authenticate", ""))
            fresh = authority.answer(challenges, request.scopes, sent)
            if fresh is None:
                return answer
            answer.close()
            sent = fresh
        return self._follow(request, url, sent)

    def _follow(self, request: Request, url: str, authorization: str | None) -> Answer:
        """Send to *url* and follow redirects; only the registry's own origin sees credentials."""
        home = origin(self.base())
        for _ in range(_MOST_REDIRECTS):
            self._check_downgrade(url, request)
            headers = dict(request.headers)
            if authorization is not None and origin(url) == home:
                headers["Authorization"] = authorization
            body = None if request.body is None else request.body()
            answer = self._transport.send(request.method, url, headers, body, settle=request.settle)
            target = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or target is None:
                return answer
            answer.close()
            url = urljoin(url, target)
        raise CouldNotCheck(f"{request.doing}: more than {_MOST_REDIRECTS} redirects")

    def _check_downgrade(self, url: str, request: Request) -> None:
        scheme = urlsplit(url).scheme
        if scheme != "https" and self.base().startswith("https:"):
            raise CouldNotCheck(
                f"{request.doing}: the registry leads from HTTPS to {scheme}, which is refused",
                hint="behind a proxy, a registry must be told that it is reached by HTTPS "
                "(X-Forwarded-Proto)",
            )

    def _authority(self, request: Request) -> Authority:
        """Return who speaks for the request's first repository: credentials may differ by it."""
        repository = request.scopes[0].repository
        with self._lock:
            if repository not in self._authorities:
                self._authorities[repository] = Authority(
                    self._transport,
                    self.patience,
                    self.registry,
                    lambda: self._keyring.find(self.registry, repository),
                )
            return self._authorities[repository]
