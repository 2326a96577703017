"""Web addresses, read once: what is checked is what is connected to.

Libraries disagree about odd addresses: in ``http://other\\@home/`` one sees the host ``other`` and
another sees ``home``. Here an address is ASCII without blanks, control characters, backslashes and
user names, or it is refused.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urljoin

from nix_seed.core.errors import CouldNotCheck

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
