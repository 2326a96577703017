"""Requests to one registry: challenges answered, redirects followed, trouble waited out.

* Credentials go to the registry's own origin and to the token server it names, and nowhere else: a
  redirect or an upload location on another host gets none.
* What is safe is tried again: requests that change nothing or do the same twice, and any request
  whose answer says that it was not carried out.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from typing import TypeVar

from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.values import dataclass
from nix_seed.registry.auth import Challenge, TokenAuthority, TokenScope, parse_challenges
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import (
    Denied,
    Patience,
    Unreachable,
    failure,
    is_registrys,
    no_registry,
)
from nix_seed.registry.http import REDIRECTS, Answer, Transport
from nix_seed.registry.rules import http

_MOST_REDIRECTS = 5
_ABSENT = (http.RegistryQuestion.THERE, http.RegistryQuestion.TAGS)
_DOCKER_HUB = "docker.io"
_DOCKER_HUB_HOST = "registry-1.docker.io"

T = TypeVar("T")
Body = Callable[[], bytes | Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class RegistryRequest:
    """One request. *url* is absolute, or a path below ``/v2/``; *body* makes a fresh body a try.

    *doing* is what errors say was tried, *scopes* the permissions it takes, *question* what the
    table of answers is asked. *safe*: may be repeated although an earlier try may have been carried
    out.
    """

    method: str
    url: str
    doing: str
    scopes: tuple[TokenScope, ...]
    question: http.RegistryQuestion
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    safe: bool = True
    settle: bool = False

    @property
    def repository(self) -> str:
        """The first repository: it decides about credentials."""
        return self.scopes[0].repository


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer read to its end. ``body`` is None where it was longer than was allowed.

    ``error`` is what to raise where the answer is not decisive and no other way is left.
    """

    meaning: http.Meaning
    headers: Mapping[str, str]
    url: str
    body: bytes | None
    error: NixSeedError | None = None


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
        self._authorities: dict[str, TokenAuthority] = {}
        self._base: str | None = None
        # By a blob's address in the registry, where it was redirected to.
        self._storage: dict[str, str] = {}
        self._challenges: tuple[Challenge, ...] | None = None
        self._known = False
        self._lock = threading.Lock()

    def call(self, request: RegistryRequest, *, limit: int = 1 << 20) -> Reply:
        """Send *request* and read its answer, of at most *limit* bytes; tries again where safe."""
        return self.patience.retry(lambda: self._once(request, limit), safe=request.safe)

    def open(self, request: RegistryRequest) -> Answer:
        """Send *request* once and return the answer with its body still on the wire.

        For parts of a blob, where an earlier part was redirected to is asked directly: going by the
        registry would double each round trip. Such addresses live minutes; then it is asked again.
        """
        answer = self._from_storage(request) or self._authorized(request)
        rule = self._judge(request, answer)
        if rule.meaning in (http.Meaning.YES, http.Meaning.NO):
            elsewhere = http.parse_url(answer.url).origin != http.parse_url(self.base()).origin
            if elsewhere and answer.status == 206 and "Range" in request.headers:
                self._storage[request.url] = answer.url
            return answer
        raise self._failure(request, answer, rule)

    def _from_storage(self, request: RegistryRequest) -> Answer | None:
        """Return the part of a blob that its storage gives, None where it is not asked, or not."""
        address = self._storage.get(request.url) if "Range" in request.headers else None
        if address is None:
            return None
        try:
            answer = self._transport.send("GET", address, request.headers)
        except Unreachable:
            self._storage.pop(request.url, None)
            return None
        if answer.status == 206:
            return answer
        answer.close()
        self._storage.pop(request.url, None)
        return None

    def has_credential(self, repository: str) -> bool:
        """Whether there is anything to log in with, to *repository*."""
        return self._authority(repository).has_credential()

    def base(self) -> str:
        """Return ``https://host``, or ``http://host`` where that is allowed and all there is."""
        with self._lock:
            if self._base is None:
                self._base = self._find_base()
            return self._base

    def _find_base(self) -> str:
        if self._plain_http:
            return f"http://{self._host}"
        address = f"https://{self._host}/v2/"
        # Only a server that answers, and not in TLS, is spoken to in plain HTTP. A certificate that
        # is not accepted stays an error.
        here = http.is_loopback(http.parse_url(address).host)
        if here and not self._transport.speaks_tls(address):
            return f"http://{self._host}"
        return f"https://{self._host}"

    def _once(self, request: RegistryRequest, limit: int) -> Reply:
        try:
            answer = self._authorized(request)
        except Denied as error:
            # A token server that refuses says what the registry itself would have said by a 403.
            if http.judge(request.question, 403).meaning is not http.Meaning.OTHER_WAY:
                raise
            return Reply(http.Meaning.OTHER_WAY, {}, "", b"", error)
        rule = self._judge(request, answer)
        if rule.meaning is http.Meaning.OTHER_WAY:
            failed = self._failure(request, answer, rule)
            if isinstance(failed, Unreachable):
                raise failed
            return Reply(rule.meaning, answer.headers, answer.url, b"", failed)
        if rule.meaning not in (http.Meaning.YES, http.Meaning.NO):
            raise self._failure(request, answer, rule)
        body = b"" if request.method == "HEAD" else answer.read(limit)
        answer.close()
        if body == b"" and request.method == "GET" and rule.meaning is http.Meaning.YES:
            raise Unreachable(f"{request.doing}: the answer is empty", hint="try again later")
        if rule.meaning is http.Meaning.NO and request.question in _ABSENT:
            doubt = self._doubt(request, answer, body or b"")
            if doubt is not None:
                return Reply(http.Meaning.OTHER_WAY, answer.headers, answer.url, b"", doubt)
        return Reply(rule.meaning, answer.headers, answer.url, body)

    def _doubt(self, request: RegistryRequest, answer: Answer, body: bytes) -> NixSeedError | None:
        """Return what to raise where it was no registry that said "not there".

        Any web server says 404. A registry shows what it is in its answers, or at ``/v2/``.
        """
        if self._known or is_registrys(answer.headers, body):
            self._known = True
            return None
        greeting = replace(request, method="GET", url="", headers={}, body=None)
        try:
            found = self._authorized(greeting)
        except Denied:
            return None  # it has a token server
        if found.status in http.LATER:
            raise self._failure(greeting, found, http.judge(request.question, found.status))
        said = found.status == 401 or (found.status == 200 and not http.is_page(found.headers))
        self._known = said or is_registrys(found.headers, found.read_error())
        found.close()
        return None if self._known else no_registry(request.doing, answer.status, self.base())

    def _judge(self, request: RegistryRequest, answer: Answer) -> http.Rule:
        home = http.parse_url(self.base()).origin
        elsewhere = http.parse_url(answer.url).origin != home
        head = request.method == "HEAD"
        rule = http.judge(request.question, answer.status, elsewhere=elsewhere, head=head)
        if rule.meaning is http.Meaning.LATER and answer.status < 300:
            # A login's page stays one.
            if http.is_page(answer.headers):
                return http.Rule(request.question, rule.statuses, http.Meaning.REFUSED)
            # What answers another request may be followed by more of it.
            answer.discard()
        return rule

    def _failure(self, request: RegistryRequest, answer: Answer, rule: http.Rule) -> NixSeedError:
        host, home = http.parse_url(answer.url).netloc, http.parse_url(self.base()).netloc
        who = http.who_answered(answer.status, answer.headers, host, home)
        body = answer.read_error()
        attempt = self._authority(request.repository).attempt(request.doing, request.scopes)
        return failure(attempt, rule, answer.status, answer.headers, body, who)

    def _authorized(self, request: RegistryRequest) -> Answer:
        home = http.parse_url(self.base())
        url = http.join_url(http.parse_url(f"{home}/v2/"), request.url, "the registry's address")
        url = http.upgraded(url, home)
        authority = self._authority(request.repository)
        ours = url.origin == home.origin
        sent = authority.header(request.scopes) if ours else None
        # Two rounds: one for a first challenge or an expired token, one for a token that another
        # thread's narrower request had put in its place.
        for _ in range(2):
            answer = self._follow(request, url, sent)
            fresh = self._fresh(request, answer, authority, sent)
            if fresh is None:
                return answer
            answer.close()
            sent = fresh
        return self._follow(request, url, sent)

    def _fresh(
        self,
        request: RegistryRequest,
        answer: Answer,
        authority: TokenAuthority,
        sent: str | None,
    ) -> str | None:
        """Return the ``Authorization`` to ask again with, None where *answer* stays.

        Some registries hide what a stranger may not see behind a 404, or challenge at ``/v2/``
        alone: who has credentials and was never asked for them is challenged there.
        """
        if http.parse_url(answer.url).origin != http.parse_url(self.base()).origin:
            return None
        found: tuple[Challenge, ...] = ()
        if answer.status == 401:
            found = parse_challenges(answer.headers.get("WWW-Authenticate", ""))
            self._known |= any(each.scheme == "bearer" for each in found)
        elif answer.status == 403 and sent is not None and sent.startswith("Basic "):
            found = (Challenge("basic", {}),)  # so ECR says that a password has expired
        hidden = answer.status in (401, 403, 404) and sent is None and not found
        if hidden and authority.has_credential():
            found = self._greeting()
        if answer.status != 401 and not found:
            return None
        return authority.answer(found, request.scopes, sent)

    def _greeting(self) -> tuple[Challenge, ...]:
        """Return the challenges of ``/v2/``, asked for once."""
        if self._challenges is None:
            answer = self._transport.send("GET", f"{self.base()}/v2/", {})
            said = answer.headers.get("WWW-Authenticate", "") if answer.status == 401 else ""
            answer.close()
            self._challenges = parse_challenges(said)
        return self._challenges

    def _follow(self, request: RegistryRequest, url: http.Url, authorization: str | None) -> Answer:
        """Send to *url* and follow redirects; only the registry's own origin sees credentials."""
        base = http.parse_url(self.base())
        home = base.origin
        for _ in range(_MOST_REDIRECTS):
            self._check_downgrade(url, request)
            headers = dict(request.headers)
            if authorization is not None and url.origin == home:
                headers["Authorization"] = authorization
            body = None if request.body is None else request.body()
            answer = self._transport.send(
                request.method, str(url), headers, body, settle=request.settle
            )
            target = answer.headers.get("Location")
            if answer.status not in REDIRECTS or target is None:
                return answer
            answer.close()
            url = http.upgraded(http.join_url(url, target, "the registry's redirect to"), base)
        raise CouldNotCheck(f"{request.doing}: more than {_MOST_REDIRECTS} redirects")

    def _check_downgrade(self, url: http.Url, request: RegistryRequest) -> None:
        if url.scheme != "https" and self.base().startswith("https:"):
            raise CouldNotCheck(
                f"{request.doing}: the registry leads from HTTPS to {url.scheme}, which is refused",
                hint="behind a proxy, a registry must be told that it is reached by HTTPS "
                "(X-Forwarded-Proto)",
            )

    def _authority(self, repository: str) -> TokenAuthority:
        """Return who speaks for the repository: credentials may differ by it."""
        home = http.parse_url(self.base())
        with self._lock:
            if repository not in self._authorities:
                self._authorities[repository] = TokenAuthority(
                    self._transport,
                    self.patience,
                    self.registry,
                    lambda: self._keyring.find(self.registry, repository),
                    home,
                )
            return self._authorities[repository]
