"""Edits of ``trust.toml`` that leave every comment, and the order of all that is there, as it was.

A policy that anything was released by is never changed: ``next_policy`` makes the one after it,
with a higher epoch, that accepts what was released before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import tomlkit
from tomlkit.items import AoT, Array, Item, Table, Whitespace

from nix_seed.core.errors import InputError, foreign
from nix_seed.trust.rules.policy import Policy

_ROOM: Final = 100  # columns that an array may take on one line


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """What the next policy says otherwise.

    Builders in *revoked*, by id, count no more from that moment on; promoters *removed* are none
    any more; each log in *places* is there from now on. It is good until *expires*, if that is
    given. *accepts*: what was released by the policy before still stands.
    """

    revoked: Mapping[str, datetime]
    removed: Sequence[str] = ()
    places: Mapping[str, str] | None = None
    expires: datetime | None = None
    accepts: bool = True


@dataclass(frozen=True, slots=True)
class NewBuilder:
    """A builder to add: its *id*, and values of other keys of ``[[builders]]``, in their order."""

    id: str
    values: Mapping[str, str | datetime | Sequence[str]]


def next_policy(text: str, old: Policy, step: PolicyStep, label: str) -> str:
    """Return *text*, which is that of *old*, as the next policy; *label* names it in errors."""
    document = _parsed(text, label)
    document["epoch"] = old.epoch + 1
    if step.expires is not None:
        document["expires"] = step.expires
    if step.accepts:
        _accept(document, str(old.digest))
    for name, moment in step.revoked.items():
        table = _named(document, "builders", name, label)
        if "revokedAt" in table:
            table["revokedAt"] = moment
        else:
            end = _cut(table)
            table.append("revokedAt", moment)
            table.value.body.extend(end)
    for name, place in (step.places or {}).items():
        _named(document, "logs", name, label)["url"] = place
    for name in step.removed:
        _remove(document, "promoters", name, label)
    return tomlkit.dumps(document)


def add_builder(text: str, builder: NewBuilder, label: str) -> str:
    """Return *text* with *builder* after those there are; ``InputError`` where its id is taken."""
    document = _parsed(text, label)
    builders = _tables(document, "builders", label)
    if any(each.get("id") == builder.id for each in builders):
        raise InputError(
            f"{label} has a builder {builder.id} already",
            hint="choose another id: another key under the same one would disown what it signed",
        )
    added = tomlkit.table()
    added.append("id", builder.id)
    for key, value in builder.values.items():
        several = isinstance(value, str) and "\n" in value
        added.append(key, tomlkit.value(f'"""\n{value}"""') if several else value)
    if builders:
        last = builders[-1]
        end = _cut(last)
        # What follows an empty line is about the next table, which now comes after the new one.
        at = next((n for n, (_, item) in enumerate(end) if isinstance(item, Whitespace)), len(end))
        last.value.body.extend([*end[:at], (None, tomlkit.nl())])
        added.value.body.extend(end[at:])
    builders.append(added)
    return tomlkit.dumps(document)


def _parsed(text: str, label: str) -> tomlkit.TOMLDocument:
    with foreign(f"{label} cannot be edited", as_=InputError, hint="edit it by hand"):
        return tomlkit.parse(text)


def _accept(document: tomlkit.TOMLDocument, digest: str) -> None:
    found = document.get("accepts")
    if not isinstance(found, Array):
        document["accepts"] = tomlkit.item([digest])
    elif "\n" in found.as_string() or len(found.as_string()) + len(digest) > _ROOM:
        found.add_line(digest, indent="  ")
    else:
        found.append(digest)


def _tables(document: tomlkit.TOMLDocument, key: str, label: str) -> Any:
    found = document.get(key)
    if found is not None and not isinstance(found, AoT):
        raise InputError(
            f"{label} writes {key} in one line, which cannot be edited",
            hint=f"write a table [[{key}]] for each",
        )
    if found is None:
        document[key] = tomlkit.aot()
    return document[key]


def _named(document: tomlkit.TOMLDocument, key: str, name: str, label: str) -> Table:
    tables: Sequence[Table] = _tables(document, key, label)
    for table in tables:
        if table.get("id") == name:
            return table
    known = ", ".join(str(table.get("id")) for table in tables) or "none"
    raise InputError(f"{label} has no {key[:-1]} {name}", hint=f"it has: {known}")


def _remove(document: tomlkit.TOMLDocument, key: str, name: str, label: str) -> None:
    """Take a table out; comments after an empty line are about the next one, and stay."""
    table = _named(document, key, name, label)
    tables = document[key]
    assert isinstance(tables, AoT)
    at = list(tables).index(table)
    end = _cut(table)
    first = next((n for n, (_, item) in enumerate(end) if isinstance(item, Whitespace)), len(end))
    kept = end[first + 1 :]
    del tables[at]
    if at < len(tables):
        after = tables[at]
        after.trivia.indent = "".join(item.as_string() for _, item in kept) + after.trivia.indent
    elif at:
        tables[at - 1].value.body.extend(kept)


def _cut(table: Table) -> list[tuple[Any, Item]]:
    """Take comments and empty lines off the end of *table*, and return them."""
    body = table.value.body
    at = max((n for n, (key, _) in enumerate(body) if key is not None), default=-1) + 1
    end = body[at:]
    del body[at:]
    return end
