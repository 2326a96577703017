"""From one policy to the next: what changes, and whether those the old one trusts agreed to it.

A change is signed as an in-toto statement over the exact bytes of the new file, which names the old
one: promoters sign it where the old policy has any, else its builders, up to the old thresholds.

``next_policy`` makes the policy after one that anything was released by, which is never changed: it
has a higher epoch, and accepts what was released before. Edits leave every comment of
``trust.toml``, and the order of all that is there, as it was.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import tomlkit
from tomlkit.items import AoT, Array, Item, Table, Whitespace

from nix_seed.core.errors import InputError, foreign
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Statement, Subject
from nix_seed.trust.rules.bundle import BundleCheck, Expected, Trust, Verdict, evaluate_bundle
from nix_seed.trust.rules.policy import Policy, is_signer, signer_name
from nix_seed.trust.rules.quorum import independent_builders
from nix_seed.trust.rules.signer import PublicKey, SignedBy

PREDICATE_TYPE: Final = "urn:nix-seed:policy:v1"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """The step from an old policy to a new one.

    *changes* and *problems* are one line each; *signed_by* are the ids whose signature counts, of
    which *wanted* are needed.
    """

    changes: tuple[str, ...]
    signed_by: tuple[str, ...]
    wanted: int
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether whoever trusted the old policy may trust the new one."""
        return not self.problems


def check_step(old: Policy, new: Policy) -> None:
    """Raise ``InputError`` where *new* cannot come after *old*, whoever signs it."""
    for problem in _step_problems(old, new):
        raise InputError(
            f"the new policy cannot come after the old one: {problem}",
            hint="`nix-seed policy next OLD` writes one that can",
        )


def voter_of(old: Policy, who: SignedBy) -> str:
    """Return the id of *who* signs, by *old*; ``InputError`` for a signature that counts not."""
    voters = old.promoters or old.builders
    for each in voters:
        if is_signer(each.signer, who):
            return each.id
    raise InputError(
        f"{signer_name(who)} may not sign the next policy: by the old one "
        f"{', '.join(each.id for each in voters)} may",
        hint="sign with a key of one of these: --key FILE",
    )


def build_change_statement(old: Policy, new: Policy) -> Statement:
    """Return what signers of the change from *old* to *new* sign."""
    predicate = {"epoch": new.epoch, "previous": str(old.digest)}
    return Statement((Subject("trust.toml", new.digest),), PREDICATE_TYPE, predicate)


def evaluate_change(
    old: Policy, new: Policy, bundles: Sequence[bytes], certificates: BundleCheck | None = None
) -> PolicyChange:
    """Judge the change by the *bundles* that sign it; *certificates* judges keyless ones."""
    voters = {each.signer: each.id for each in (old.promoters or old.builders)}
    trust = Trust.in_signers(voters, certificates)
    expected = Expected(new.digest, (PREDICATE_TYPE,))
    verdicts = tuple(
        evaluate_bundle(text, trust, expected, f"signature {number}")
        for number, text in enumerate(bundles, 1)
    )
    wanted = build_change_statement(old, new).predicate
    agreed = {
        verdict.signer
        for verdict in verdicts
        if verdict.statement is not None and verdict.statement.predicate == wanted
    }
    ids = {voters[signer] for signer in agreed if signer in voters}
    if old.promoters:
        threshold, whom = old.quorum.promoters, "promoters"
        signed_by = tuple(each.id for each in old.promoters if each.id in ids)
    else:
        # Builders count only as far as they are independent.
        threshold, whom = old.quorum.threshold, "independent builders"
        builders = [each for each in old.builders if each.id in ids and each.revoked_at is None]
        signed_by = tuple(e.id for e in independent_builders(builders, old.quorum.distinct))
    problems = [*_step_problems(old, new)]
    if len(signed_by) < threshold:
        problems.append(
            f"{len(signed_by)} of the {threshold} {whom} of the old policy that must sign did"
        )
    changes = tuple(compare_policies(old, new))
    return PolicyChange(changes, signed_by, threshold, verdicts, tuple(problems))


def compare_policies(old: Policy, new: Policy) -> Iterator[str]:
    """Yield what differs, one line each; comments and order are no difference."""
    for name in ("epoch", "expires", "source", "systems", "trusted_root", "accepts", "licences"):
        yield from _compare(name, getattr(old, name), getattr(new, name))
    yield from _compare("outputs", old.outputs, new.outputs)
    for part in ("quorum", "built"):
        one, other = getattr(old, part), getattr(new, part)
        for field in fields(one):
            label = f"{part}.{field.name}"
            yield from _compare(label, getattr(one, field.name), getattr(other, field.name))
    for name in ("builders", "logs", "witnesses", "promoters", "ledgers"):
        yield from _compare_lists(name, getattr(old, name), getattr(new, name))


def _step_problems(old: Policy, new: Policy) -> Iterator[str]:
    if old.digest == new.digest:
        yield "the two policies are the same file"
    if new.epoch <= old.epoch:
        yield f"the epoch does not rise: {old.epoch} before, {new.epoch} now"


def _compare(name: str, old: Any, new: Any) -> Iterator[str]:
    if old != new:
        yield f"{name}: {_show(old)} → {_show(new)}"


def _compare_lists(name: str, old: Iterable[Any], new: Iterable[Any]) -> Iterator[str]:
    before, after = {each.id: each for each in old}, {each.id: each for each in new}
    for key in sorted(before.keys() - after.keys()):
        yield f"{name}: {key} is gone"
    for key in sorted(after.keys() - before.keys()):
        yield f"{name}: {key} is new"
    for key in sorted(before.keys() & after.keys()):
        for field in fields(before[key]):
            one, other = getattr(before[key], field.name), getattr(after[key], field.name)
            yield from _compare(f"{name}: {key}: {field.name}", one, other)


def _show(value: Any) -> str:
    if isinstance(value, tuple | frozenset):
        return ", ".join(sorted(map(str, value))) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} of {value[key]} systems" for key in sorted(value)) or "none"
    if value is None:
        return "none"
    return signer_name(value) if isinstance(value, PublicKey) else str(value)


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
