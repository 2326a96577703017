"""Which proxy a request goes through, by the variables that people set for curl and others.

``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy``, in capitals too. What is asked of
this machine itself goes through none.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.registry.rules.url import Url, is_loopback, parse_url

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
    if is_loopback(url.host) or _exempt(_get(environ, "no") or "", url):
        return None
    for name in (url.scheme, "all"):
        if value := _get(environ, name):
            return _read(value, name)
    return None


def _get(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(f"{name}_proxy") or environ.get(f"{name.upper()}_PROXY")


def _read(text: str, name: str) -> Proxy:
    found = _NAMED.match(text.strip())
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


def _exempt(no_proxy: str, url: Url) -> bool:
    return any(_matches(entry.lower(), url) for entry in re.split(r"[\s,]+", no_proxy) if entry)


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
