"""What a package's ``meta.license`` means: may its files be passed on (docs/licences.md)?

A licence is what nixpkgs writes: a set with ``spdxId``, ``free`` and ``redistributable``, a string,
or a list of which all apply. Whatever else it is, it is unknown, and never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from nix_seed.rules.spdx import Status, evaluate_expression, worst

__all__ = [
    "UNSTATED",
    "Fact",
    "Licence",
    "LicencePolicy",
    "is_licence",
    "join",
    "read_facts",
    "read_licence",
]

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
    """Judge what ``nix/meta.nix`` makes of ``meta.license``: a list of which all apply."""
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
    """Read what ``nix/meta.nix`` answers, by derivation path; skip what makes no sense."""
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


def _malformed(what: str) -> Licence:
    return Licence(f"malformed ({what})", "unknown")


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
