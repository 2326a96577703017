"""May the work be passed on? What ``meta.license`` and SPDX expressions mean (docs/licences.md).

A licence is what nixpkgs writes: a set with ``spdxId``, ``free`` and ``redistributable``, a string,
or a list of which all apply. Whatever else it is, it is unknown, and never an error.

Of SPDX identifiers (SPDX 2.3, annex D) those are listed whose terms let anyone pass unchanged
copies on; whatever is not listed is unknown, never guessed.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from nix_seed.core.values import dataclass

Status = Literal["redistributable", "withheld", "unknown"]

_PLAIN = """
0BSD AFL-2.0 AFL-2.1 AFL-3.0 APSL-2.0 Apache-1.0 Apache-1.1 Apache-2.0 Artistic-1.0
Artistic-1.0-Perl Artistic-1.0-cl8 Artistic-2.0 Beerware BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause
BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause BSD-3-Clause-Clear BSD-3-Clause-LBNL
BSD-4-Clause BSD-4-Clause-UC BSD-Source-Code BSL-1.0 bzip2-1.0.5 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0
CC-BY-SA-3.0 CC-BY-SA-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC0-1.0 CDDL-1.0 CDDL-1.1
CECILL-2.0 CECILL-2.1 CECILL-B CECILL-C CPL-1.0 curl ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 FSFAP
FSFUL FSFULLR FTL HPND HPND-sell-variant ICU IJG ImageMagick Info-ZIP IPA IPL-1.0 ISC JasPer-2.0
libpng libpng-2.0 libtiff LPPL-1.0 LPPL-1.2 LPPL-1.3a LPPL-1.3c MirOS MIT MIT-0 MIT-CMU
MIT-Modern-Variant MPL-1.0 MPL-1.1 MPL-2.0 MS-PL MS-RL MulanPSL-2.0 NAIST-2003 NCSA Nethack NTP
OFL-1.0 OFL-1.1 OLDAP-2.8 OpenSSL OSL-2.1 OSL-3.0 PHP-3.01 PostgreSQL PSF-2.0 Python-2.0
Python-2.0.1 QPL-1.0 Ruby SGI-B-2.0 Sleepycat SMLNJ SSH-OpenSSH SSPL-1.0 TCL TCP-wrappers TMate
Unicode-3.0 Unicode-DFS-2015 Unicode-DFS-2016 Unlicense UPL-1.0 Vim VSL-1.0 W3C Watcom-1.0 WTFPL
X11 XFree86-1.1 Xnet Zend-2.0 Zlib zlib-acknowledgement ZPL-2.0 ZPL-2.1
"""
_VERSIONED = {
    "GPL": ("1.0", "2.0", "3.0"),
    "LGPL": ("2.0", "2.1", "3.0"),
    "AGPL": ("1.0", "3.0"),
    "GFDL": ("1.1", "1.2", "1.3"),
}
_KNOWN = frozenset(name.lower() for name in _PLAIN.split()) | frozenset(
    f"{family}-{version}{suffix}".lower()
    for family, versions in _VERSIONED.items()
    for version in versions
    for suffix in ("", "+", "-only", "-or-later")
)
_RANK: dict[Status, int] = {"redistributable": 0, "unknown": 1, "withheld": 2}
# A hostile expression must not exhaust the stack.
_LONGEST, _DEEPEST = 1000, 50


def worst(statuses: list[Status]) -> Status:
    """Return what holds where all of *statuses* apply; ``unknown`` where there is none."""
    return max(statuses, key=_RANK.__getitem__) if statuses else "unknown"


def _best(statuses: list[Status]) -> Status:
    return min(statuses, key=_RANK.__getitem__)


def parse_expression(text: str) -> Any:
    """Return the library's tree of an SPDX expression; None for what is none.

    Its names may be any. Others are free to nest and repeat them: both are bounded here.
    """
    from license_expression import Licensing

    if len(text) > _LONGEST or text.count("(") > _DEEPEST:
        return None
    try:
        return Licensing().parse(text)
    except Exception:  # of any kind: "( )" is an IndexError of its, "(OR" an AssertionError
        return None


def evaluate_expression(text: str) -> Status:
    """Judge an identifier or expression: ``MIT``, ``(GPL-2.0-only WITH x) OR Apache-2.0``.

    Of what is joined by OR one may choose. What is no expression is unknown.
    """
    tree = parse_expression(text)
    return "unknown" if tree is None else _status(tree)


def combine(expressions: Iterable[str]) -> str:
    """Return the expression of what several works under *expressions* come to, sorted.

    Empty where there are none, or one names no SPDX licence that is known here.
    """
    terms: set[str] = set()
    for text in set(expressions):
        tree = parse_expression(text)
        if tree is None or _status(tree) == "unknown":
            return ""
        parts = tree.args if tree.args and tree.operator.strip() == "AND" else (tree,)
        terms |= {f"({each})" if each.args else str(each) for each in parts}
    return " AND ".join(sorted(terms))


def _status(tree: Any) -> Status:
    statuses = [_status(each) for each in tree.args]
    if statuses:
        return worst(statuses) if tree.operator.strip() == "AND" else _best(statuses)
    # An exception only ever permits more.
    name = getattr(tree, "license_symbol", tree).key
    return "redistributable" if name.lower() in _KNOWN else "unknown"


# Words that nixpkgs' sets are called by where only their name is left.
_WITHHELD = frozenset({"unfree", "proprietary", "non-free", "nonfree"})
_PASSED_ON = frozenset({"free", "publicdomain", "public domain", "unfreeredistributable"})
_WITHHELD_BY, _ACCEPTED_BY = "withheld by the recipe", "accepted by the recipe"
# What stands where a licence would, and is this project's own word.
_REMARK = re.compile(rf"(?:\A| AND )\(?(?:malformed \(|see |{_WITHHELD_BY}|{_ACCEPTED_BY})")


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence's *name* for people (SPDX where there is one) and what it permits."""

    name: str
    status: Status


UNSTATED = Licence("", "unknown")
"""No licence is stated at all."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What ``meta`` says of one derivation."""

    licence: Licence
    homepage: str = ""


class LicencePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The recipe's own word: licences or packages to *accept* or *withhold* whatever ``meta`` says.

    ``unknown``: whether images with unknown licences may go to a registry. ``refuse`` them, or
    only ``report`` them.
    """

    accept: tuple[str, ...] = ()
    withhold: tuple[str, ...] = ()
    unknown: Literal["refuse", "report"] = "refuse"

    def apply(self, licence: Licence, *names: str) -> Licence:
        """Return *licence* as the policy sees it, of a package that goes by *names*."""
        called = {licence.name, *names} - {""}
        if called & set(self.withhold):
            return Licence(licence.name or _WITHHELD_BY, "withheld")
        if called & set(self.accept):
            return Licence(licence.name or _ACCEPTED_BY, "redistributable")
        return licence


def read_licence(entries: Any) -> Licence:
    """Judge what ``meta.nix`` makes of ``meta.license``: a list of which all apply."""
    if not isinstance(entries, list | tuple) or not entries:
        return UNSTATED
    each = [_read(entry) if isinstance(entry, dict) else _malformed("?") for entry in entries]
    names = list(dict.fromkeys(licence.name for licence in each))
    shown = names[0] if len(names) == 1 else " AND ".join(_bracketed(name) for name in names)
    return Licence(shown, worst([licence.status for licence in each]))


def is_licence(name: str) -> bool:
    """Whether *name* is what someone calls a licence, and no remark made here in its place."""
    return bool(name) and _REMARK.search(name) is None


def read_facts(values: Any) -> dict[str, Fact]:
    """Read what ``meta.nix`` answers, by derivation path; skip what makes no sense."""
    found = {}
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict) and isinstance(value.get("drv"), str):
            homepage = value.get("homepage")
            found[value["drv"]] = Fact(
                read_licence(value.get("licences")), homepage if isinstance(homepage, str) else ""
            )
    return found


def _read(entry: dict[str, Any]) -> Licence:
    text = _text(entry, "text")
    if text:
        return Licence(text, _by_word(text))
    name = _text(entry, "spdxId") or _text(entry, "shortName") or _text(entry, "fullName")
    if not name:
        return _malformed(_text(entry, "malformed") or "a set without a name")
    redistributable, free = entry.get("redistributable"), entry.get("free")
    # What forbids wins: an entry that contradicts itself is not believed where it permits.
    if isinstance(redistributable, bool):
        return Licence(name, "redistributable" if redistributable else "withheld")
    if isinstance(free, bool):
        return Licence(name, "redistributable" if free else "withheld")
    return Licence(name, _by_word(name))


def _by_word(text: str) -> Status:
    word = text.strip().lower()
    if word in _WITHHELD:
        return "withheld"
    return "redistributable" if word in _PASSED_ON else evaluate_expression(text)


def _text(entry: dict[str, Any], name: str) -> str:
    """Return one line that cannot steer a terminal: a flake's own words go far from here."""
    value = entry.get(name)
    line = " ".join(value.split()) if isinstance(value, str) else ""
    return "".join(char if char.isprintable() else "\ufffd" for char in line)


def _malformed(label: str) -> Licence:
    return Licence(f"malformed ({label})", "unknown")


def _bracketed(name: str) -> str:
    return f"({name})" if " OR " in name.upper() else name


def join(licences: Iterable[Licence]) -> Licence:
    """Return the licence of what several works under *licences* are part of."""
    each = list(licences)
    status = worst([licence.status for licence in each])
    decisive = {licence.name for licence in each if licence.status == status and licence.name}
    names = sorted(decisive)
    shown = names[0] if len(names) == 1 else " AND ".join(map(_bracketed, names))
    return Licence(shown, status)
