r"""Web addresses, read once: what is checked is what is connected to.

Libraries disagree about odd addresses: in ``http://other\@home/`` one sees the host ``other`` and
another sees ``home``. Here an address is ASCII without blanks, control characters, backslashes and
user names, or it is refused.

Which proxy a request goes through, by the variables that people set for curl and others.

``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy``, in capitals too. What is asked of
this machine itself goes through none.

What a registry's answers mean, as registries are: one table for every request.

An answer that the specification does not know is not decisive where a digest, or another way, would
settle the question. For each question the table says what an answer means, which other way there is
and what people are told when none is left. ``docs/registries.md`` shows the same table.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import unquote, urljoin

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import DOCKERS, MediaType

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:[/?][!-\[\]-~]*)?)\Z",
    re.IGNORECASE,
)
_STRANGE = re.compile(r"[^!-\[\]-~]")
_LONGEST = 1 << 14


@dataclass(frozen=True, slots=True)
class Url:
    """An address in parts; *target* is path and query. ``str`` of it is what is sent."""

    scheme: str
    host: str
    port: int
    target: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"

    @property
    def netloc(self) -> str:
        """Host, and the port where it is not the scheme's own."""
        usual = {"https": 443, "http": 80}[self.scheme]
        return self.host if self.port == usual else f"{self.host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what credentials are bound to."""
        return self.scheme, self.host, self.port

    @property
    def shown(self) -> str:
        """The address for people. Queries carry upload states and signed links: none is shown."""
        return f"{self.scheme}://{self.netloc}{self.target.partition('?')[0]}"


@lru_cache(256)  # a request looks at the same few addresses a dozen times
def parse_url(text: str, source: str = "the address") -> Url:
    """Read *text*; ``CouldNotCheck`` unless there is one way to read it. *source* is who gave it.

    A fragment is left out: it is never sent.
    """
    found = None if len(text) > _LONGEST else _URL.match(text.partition("#")[0])
    port = int(found["port"] or {"https": 443, "http": 80}[found["scheme"].lower()]) if found else 0
    if found is None or not 0 < port < 1 << 16:
        shown = _STRANGE.sub("\N{REPLACEMENT CHARACTER}", text.partition("?")[0].rpartition("@")[2])
        raise CouldNotCheck(
            f"{source} {shown[:200]!r} is no address that can be followed",
            hint="an address is http(s)://host[:port]/path, with no user, blank or backslash in it",
        )
    return Url(found["scheme"].lower(), found["host"].lower(), port, found["target"])


def join_url(base: Url, text: str, source: str) -> Url:
    """Read *text* as a reference from *base* (RFC 3986, 5.2); *source* is who gave it."""
    if _STRANGE.search(text):
        return parse_url(text, source)  # which refuses it
    try:
        return parse_url(urljoin(str(base), text), source)
    except ValueError:
        return parse_url(text, source)


def upgraded(url: Url, home: Url) -> Url:
    """Return *url*, by HTTPS where it is *home*'s own host in plain HTTP.

    So servers answer that know nothing of the proxy before them, which speaks TLS for them.
    """
    own = url.host == home.host and url.port in (80, home.port)
    if own and (url.scheme, home.scheme) == ("http", "https"):
        return replace(url, scheme="https", port=home.port)
    return url


@lru_cache(256)
def is_loopback(host: str) -> bool:
    """Whether *host* (no port) can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def number(text: str | None) -> int | None:
    """Read a header's count; None for what is none, or is too large to be one."""
    plain = text is not None and re.fullmatch(r"[0-9]{1,18}", text)
    return int(plain[0]) if plain else None


def date(text: str) -> datetime:
    """Read a header's date (RFC 9110, 5.6.7); ``ValueError`` for what is none.

    It is UTC, also where it says so by ``-0000``, which others take for a time without a zone.
    """
    from email.utils import parsedate_to_datetime

    read = parsedate_to_datetime(text)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read


_NAMED = re.compile(
    r"(?:(?P<scheme>[a-z0-9+.-]+)://)?(?:(?P<user>[^@/]*)@)?(?P<rest>[^@]+)\Z", re.I
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is, and the ``Proxy-Authorization`` that it gets."""

    url: str
    authorization: str | None = field(default=None, repr=False)


def proxy_for(environ: Mapping[str, str], url: Url) -> Proxy | None:
    """Return the proxy for *url*, None for a direct connection.

    ``InputError`` for a proxy that cannot be used; its message holds no password.
    """
    exempt = re.split(r"[\s,]+", (_get(environ, "no") or "").lower())
    if is_loopback(url.host) or any(_matches(entry, url) for entry in exempt if entry):
        return None
    for name in (url.scheme, "all"):
        if value := _get(environ, name):
            found = _NAMED.match(value.strip())
            scheme = (found["scheme"] or "http").lower() if found else ""
            try:
                if found is None or scheme not in ("http", "https"):
                    raise CouldNotCheck("of no kind that is known")
                where = parse_url(f"{scheme}://{found['rest']}")
            except CouldNotCheck as error:
                raise InputError(
                    f"{name.upper()}_PROXY names no proxy that can be used",
                    hint="write http://[user:password@]host:port; socks proxies are not supported",
                ) from error
            if not found["user"]:
                return Proxy(str(where))
            pair = base64.b64encode(unquote(found["user"]).encode()).decode()
            return Proxy(str(where), f"Basic {pair}")
    return None


def _get(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(f"{name}_proxy") or environ.get(f"{name.upper()}_PROXY")


def _matches(entry: str, url: Url) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return ip_address(url.host.strip("[]")) in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, port = entry.rpartition(":")
    if colon and port.isascii() and port.isdigit() and (":" not in name or name.endswith("]")):
        if int(port[:6]) != url.port:
            return False
        entry = name
    name = entry.removeprefix("*").lstrip(".").strip("[]")
    host = url.host.strip("[]")
    return host == name or host.endswith(f".{name}")


class RegistryQuestion(Enum):
    """What a request asks of a registry."""

    THERE = "is this manifest there?"
    BESIDE = "what lies beside it?"
    TAGS = "which tags are there?"
    HOLDS = "is this blob there?"
    GIVE = "give me this blob"
    WRITE = "may I write?"
    LINK = "link a blob you have"
    TAKE_BLOB = "take this blob"
    TAKE_MANIFEST = "take this manifest"
    FORGET = "forget this upload"
    TOKEN = "give me a token"


class Meaning(Enum):
    """What an answer comes to."""

    YES = "yes"
    NO = "no"
    OTHER_WAY = "another way decides"
    LATER = "ask again later"
    DENIED = "denied"
    REFUSED = "could not check"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: *statuses* that answer *question* mean *meaning*.

    ``way`` is the other way that is tried, ``said`` what people read when none is left. Who refuses
    *by_storage* wants no other credentials.
    """

    question: RegistryQuestion
    statuses: frozenset[int]
    meaning: Meaning
    way: str = ""
    said: str = ""
    by_storage: bool = False


def _row(
    question: RegistryQuestion, statuses: str, meaning: Meaning, way: str = "", said: str = ""
) -> Rule:
    return Rule(question, frozenset(map(int, statuses.split())), meaning, way, said)


_AS_A_WRITER = "ask with the right to push, then look in the list of tags"
_BY_TAG = "read the fallback tag"
_SEND = "send the blob"
_BY_GET = "ask by GET"
_DIGEST = "ask for the digest that was sent"
_Q, _M = RegistryQuestion, Meaning

UNKNOWN_KIND: Final = (
    "this registry does not know documents of this kind; a newer version of it may"
)
TABLE: Final = (
    _row(_Q.THERE, "200", _M.YES),
    _row(_Q.THERE, "404 410", _M.NO),
    _row(_Q.THERE, "401 403", _M.OTHER_WAY, _AS_A_WRITER),
    _row(_Q.THERE, "400 405 406 501", _M.OTHER_WAY, "a HEAD: ask by GET", "it cannot be asked for"),
    _row(_Q.BESIDE, "200", _M.YES, "no index: " + _BY_TAG),
    _row(_Q.BESIDE, "400 401 402 403 404 405 406 409 410 415 422 501", _M.OTHER_WAY, _BY_TAG),
    _row(_Q.TAGS, "200", _M.YES),
    _row(_Q.TAGS, "404 410", _M.NO),
    _row(_Q.HOLDS, "200", _M.YES),
    _row(_Q.HOLDS, "404 410", _M.NO),
    _row(_Q.HOLDS, "400 401 403 405 501", _M.OTHER_WAY, _SEND),
    _row(_Q.GIVE, "200 206", _M.YES),
    _row(
        _Q.GIVE, "404 410", _M.NO, said="is missing in the registry, although a manifest names it"
    ),
    _row(_Q.GIVE, "416", _M.NO, "a part: ask for all of it", "is shorter than it should be"),
    _row(_Q.WRITE, "202", _M.YES),
    _row(
        _Q.WRITE,
        "404",
        _M.REFUSED,
        said="create the repository first, or name its owner: HOST/OWNER/NAME",
    ),
    _row(
        _Q.WRITE, "405", _M.REFUSED, said="this repository is only read from: a mirror or a cache"
    ),
    _row(_Q.LINK, "201", _M.YES),
    _row(_Q.LINK, "202 400 401 403 404 405 409 416 422 500 501", _M.OTHER_WAY, _SEND),
    _row(_Q.TAKE_BLOB, "201", _M.YES),
    _row(_Q.TAKE_BLOB, "200 202 204", _M.YES),
    _row(_Q.TAKE_BLOB, "404 416", _M.LATER, "begin the upload anew"),
    _row(
        _Q.TAKE_BLOB,
        "413",
        _M.OTHER_WAY,
        "send it in parts",
        "something before the registry limits how much is sent",
    ),
    _row(_Q.TAKE_MANIFEST, "201", _M.YES),
    _row(_Q.TAKE_MANIFEST, "200 202 204", _M.OTHER_WAY, _DIGEST),
    _row(
        _Q.TAKE_MANIFEST,
        "400 409 412",
        _M.OTHER_WAY,
        "see whether the tag names it already",
        "where tags are immutable here, exempt the tags sha256-* from that",
    ),
    _row(_Q.TAKE_MANIFEST, "413", _M.REFUSED, said="the manifest is too large for this registry"),
    _row(_Q.TAKE_MANIFEST, "404 405 406 415 422 501", _M.REFUSED, said=UNKNOWN_KIND),
    _row(_Q.TOKEN, "200", _M.YES),
    _row(_Q.FORGET, "200 202 204 400 404 405 501", _M.YES),
)
"""Every answer that has a meaning of its own; ``judge`` says what all others mean."""

LATER: Final = frozenset({408, 425, 429, 499, 500, 502, 503, 504, *range(520, 525)})
_HEADLESS: Final = frozenset({400, 401, 403, 405, 501})
_STORAGE: Final = "ask the registry for a fresh address"
_ANY: Final = (
    ("401 403", Meaning.DENIED, "log in, or ask for the permission that is named"),
    ("407", Meaning.DENIED, "the proxy wants credentials: put them in HTTPS_PROXY"),
    (" ".join(map(str, sorted(LATER))), Meaning.LATER, "try again later"),
    ("200 201 202 203 204 206", Meaning.LATER, "it answers something else; try again later"),
)


def judge(
    question: RegistryQuestion, status: int, *, elsewhere: bool = False, head: bool = False
) -> Rule:
    """Return what *status* means in answer to *question*, asked by a HEAD or not.

    *elsewhere*: the storage behind the registry answered, to which an address led that may have
    expired, and that is good for a GET alone. Its refusal is nothing to log in for.
    """
    if elsewhere and head and status in _HEADLESS:
        way = _SEND if question is RegistryQuestion.HOLDS else _BY_GET
        return Rule(question, frozenset({status}), Meaning.OTHER_WAY, way, by_storage=True)
    if elsewhere and question is RegistryQuestion.BESIDE and status != 200:
        return Rule(question, frozenset({status}), Meaning.OTHER_WAY, _BY_TAG)
    if elsewhere and status in (400, 403):
        return Rule(question, frozenset({status}), Meaning.LATER, _STORAGE)
    for rule in TABLE:
        if rule.question is question and status in rule.statuses:
            return rule
    for statuses, meaning, said in _ANY:
        if str(status) in statuses.split():
            return Rule(question, frozenset({status}), meaning, said=said)
    return Rule(question, frozenset({status}), Meaning.REFUSED)


def is_page(headers: Mapping[str, str]) -> bool:
    """Whether what came is a web page: a login's or a proxy's, and no answer to what was asked."""
    return headers.get("Content-Type", "").lower().startswith("text/html")


def who_answered(status: int, headers: Mapping[str, str], host: str, home: str) -> str:
    """Name who gave an answer: the registry at *home*, the storage at *host*, or a proxy."""
    if status == 407:
        return "the proxy"
    if host != home:
        return f"the storage behind it, {host},"
    if is_page(headers):
        return "the registry, or a proxy before it (it sent a web page),"
    return "the registry"


READABLE: Final = (MediaType.MANIFEST, MediaType.INDEX, *DOCKERS)
"""The documents that a registry is asked for."""


def digest_hint(headers: Mapping[str, str]) -> Digest | None:
    """Return the digest that a header names, None where it names none of this kind."""
    try:
        return Digest.parse(headers.get("Docker-Content-Digest", ""))
    except InputError:
        return None


def document_type(header: str | None, body: bytes = b"", label: str = "") -> str:
    """Return the header's media type, or for a general one what the document says of itself."""
    kind = (header or "").partition(";")[0].strip()
    if kind in READABLE or not body:
        return kind or MediaType.MANIFEST
    value = canonical_json.loads(body, label=label)
    inner = value.get("mediaType") if isinstance(value, dict) else None
    if isinstance(inner, str):
        return inner
    is_index = isinstance(value, dict) and "manifests" in value
    return kind or (MediaType.INDEX if is_index else MediaType.MANIFEST)


def follows(page: Sequence[str], last: str) -> bool:
    """Whether *page* is sorted, by capitals or without, and comes after *last*: where it ends, and
    what is missing, can then be told from a part of the list.
    """
    return any(
        list(page) == sorted(page, key=key) and all(key(tag) > key(last) for tag in page[:1])
        for key in (str, str.lower)
    )
