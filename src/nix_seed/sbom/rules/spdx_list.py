"""The identifiers of the SPDX licence list, and expressions made of them (SPDX 2.3, annex D).

The list is the one that the library ``license-expression`` ships. Whether a work may be passed on
is ``flake/rules/licence.py``'s; here is only what a name *is*.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from nix_seed.flake.rules.licence import parse_expression

_WORD = re.compile(r"[()]|[A-Za-z0-9.+-]+")
# What the library knows others to write, and SPDX does not list.
_UNLISTED = {"BSD-2", "GPL", "Verbatim-man-pages", "Assembly-exception"}
# What the library calls an exception, and SPDX a licence that includes one, as all "-with-".
_WHOLE = {"MPL-2.0-no-copyleft-exception", "eCos-2.0"}


@cache
def spdx_list() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return licences and exceptions, the deprecated ones too, each by its lower-case spelling."""
    from license_expression import get_license_index

    licences: dict[str, str] = {}
    exceptions: dict[str, str] = {}
    for entry in get_license_index():
        for name in (entry["spdx_license_key"] or "", *entry["other_spdx_license_keys"]):
            if _WORD.fullmatch(name) and not name.startswith("LicenseRef-"):
                one = "-with-" not in name and name not in _WHOLE and entry["is_exception"]
                (exceptions if one else licences)[name.lower()] = name
    for name in _UNLISTED:
        licences.pop(name.lower(), None)
        exceptions.pop(name.lower(), None)
    return licences, exceptions


def read_expression(text: str) -> str | None:
    """Return the expression in the list's own spelling; None if it is none, or names others.

    ``mit or (GPL-2.0-only with classpath-exception-2.0)`` is ``MIT OR (GPL-2.0-only WITH
    Classpath-exception-2.0)``.
    """
    tree = parse_expression(text)
    if tree is None or not all(map(_is_listed, tree.get_literals())):
        return None
    words = " ".join(_spelled(word) for word in _WORD.findall(text))
    return words.replace("( ", "(").replace(" )", ")")


def _is_listed(symbol: Any) -> bool:
    exception = getattr(symbol, "exception_symbol", None)
    if exception is not None:
        known = exception.key.lower() in spdx_list()[1]
        return known and _is_listed(symbol.license_symbol)
    return symbol.key.lower().removesuffix("+") in spdx_list()[0]


def _spelled(word: str) -> str:
    licences, exceptions = spdx_list()
    lower = word.lower()
    plain = licences.get(lower) or exceptions.get(lower)
    if plain is None and lower.endswith("+"):
        return licences[lower[:-1]] + "+"
    return plain or word.upper()
