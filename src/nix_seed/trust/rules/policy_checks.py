"""What makes a policy no policy: a wrong type, an unknown key, a demand never or always met.

``tomllib`` reads the values and knows nothing of lines afterwards. Where there is an error to tell,
``find_lines`` has it read the text once more, one statement after another.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, field, fields
from datetime import UTC, datetime
from operator import attrgetter
from types import UnionType
from typing import (
    Any,
    Final,
    Literal,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.core.words import camel, in_utc, plural
from nix_seed.trust.rules.policy import Builder, Policy, same_name, signer_name
from nix_seed.trust.rules.quorum import independent_builders
from nix_seed.trust.rules.signer import CertificateIdentity, PublicKey, SignedBy

# Beyond 2^53 numbers would not survive JSON, in which digests and signatures are passed on.
LARGEST_NUMBER: Final = 1 << 53
_T = TypeVar("_T")
Place = tuple[str | int, ...]
"""The way to a value: ``("builders", 1, "key")``, arrays of tables by position from 0."""


def find_lines(text: str) -> dict[Place, int]:
    """Return the line, from 1, on which each table header and each key of *text* stands."""
    found: dict[Place, int] = {(): 1}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, is_header, value in _statements(text):
        if is_header:
            table = _enter(value, counts)
            found.setdefault(table, number)
        else:
            for place in _places(value, table):
                found.setdefault(place, number)
    return found


def _statements(text: str) -> Iterator[tuple[int, bool, dict[str, Any]]]:
    """Yield the line on which each statement begins, whether it opens a table, and what it says.

    One that goes on over several lines is none before the last of them.
    """
    first, held = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        held += line + "\n"
        try:
            value = tomllib.loads(held)
        except (ValueError, RecursionError):
            continue
        yield first, held.lstrip().startswith("["), value
        first, held = number + 1, ""


def _enter(header: Mapping[str, Any], counts: dict[Place, int]) -> Place:
    """Return the place a header opens; in an array of tables, that of its newest element."""
    place: Place = ()
    opened: Any = header
    while opened:
        if place in counts:
            place = (*place, counts[place] - 1)
        [(part, opened)] = opened.items()
        place = (*place, part)
        if isinstance(opened, list):
            counts[place] = counts.get(place, 0) + 1
            return (*place, counts[place] - 1)
    return place


def _places(value: Any, place: Place) -> Iterator[Place]:
    """Yield the place of each key, also inside of inline tables."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*place, key)
        yield from _places(inner, (*place, key))


_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
    datetime: "a time with its zone, such as 2027-01-31T00:00:00Z",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One table of *text*: its values, where it stands, and what was asked for so far."""

    values: Mapping[str, Any]
    place: Place
    text: str
    label: str
    _asked: set[str] = field(default_factory=set)

    def error(self, problem: str, key: str | None = None, hint: str | None = None) -> InputError:
        """Return the error *problem*, at the line of *key* or else of the table itself."""
        place = self.place if key is None else (*self.place, key)
        lines = find_lines(self.text)
        while place not in lines:
            place = place[:-1]
        return InputError(f"{self.label}, line {lines[place]}: {problem}", hint=hint)

    def optional(self, key: str, kind: type) -> Any:
        """Return the value of *key*, of exactly the type *kind*, or None where it is absent."""
        self._asked.add(key)
        value = self.values.get(key)
        if value is None:
            return None
        # `bool` is an `int` to Python, and `true` no number to a reader.
        if type(value) is not kind:
            raise self.error(f"{key} must be {_KINDS[kind]}", key)
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise self.error(f"{key} is beyond 2^53", key)
        if isinstance(value, str) and not value.strip():
            raise self.error(f"{key} is empty", key)
        return value

    def required(self, key: str, kind: type) -> Any:
        """Return the value of *key*, which must be there."""
        value = self.optional(key, kind)
        if value is None:
            # Mistyped, most likely: what is there under nearly that name says where.
            [near] = difflib.get_close_matches(key, self.values, n=1, cutoff=0.8) or [None]
            hint = None if near is None else f"is {near} meant for it?"
            raise self.error(f"{self._name()} needs {key}, {_KINDS[kind]}", near, hint)
        return value

    def time(self, key: str) -> datetime | None:
        """Return a moment in UTC, or None."""
        value: datetime | None = self.optional(key, datetime)
        if value is None:
            return None
        if value.tzinfo is None:
            raise self.error(f"{key} must be {_KINDS[datetime]}", key)
        try:
            return value.astimezone(UTC)
        except OverflowError as error:
            raise self.error(f"{key} lies beyond the calendar", key) from error

    def strings(self, key: str) -> tuple[str, ...]:
        """Return an array of strings without repetition, empty where it is absent."""
        found = self.optional(key, list) or []
        if not all(isinstance(item, str) and item.strip() for item in found):
            raise self.error(f"{key} must be an array of strings", key)
        if len(set(found)) != len(found):
            raise self.error(f"{key} names something twice", key)
        return tuple(found)

    def number(self, key: str, *, least: int = 0, most: int = LARGEST_NUMBER) -> int | None:
        """Return a whole number from *least* to *most*, or None where it is absent."""
        value: int | None = self.optional(key, int)
        if value is not None and not least <= value <= most:
            raise self.error(f"{key} must be from {least} to {most}", key)
        return value

    def one_of(self, key: str, known: Sequence[str]) -> Any:
        """Return one of the words *known*, or None where it is absent."""
        value: str | None = self.optional(key, str)
        if value is not None and value not in known:
            raise self.error(f"{key} is {value!r}", key, f"known: {', '.join(known)}")
        return value

    @contextmanager
    def reading(self, key: str, hint: str | None = None) -> Iterator[None]:
        """Have an error inside say where *key* stands."""
        try:
            yield
        except InputError as error:
            problem = error.message if error.message.startswith(key) else f"{key}: {error.message}"
            raise self.error(problem, key, hint or error.hint) from error

    def flag(self, key: str) -> bool:
        """Return true or false, false where it is absent."""
        return bool(self.optional(key, bool))

    def table(self, key: str) -> Section:
        """Return the table *key*, an empty one where it is absent."""
        found = self.optional(key, dict) or {}
        return Section(found, (*self.place, key), self.text, self.label)

    def tables(self, key: str) -> Iterator[Section]:
        """Yield the tables of the array *key*, none where it is absent."""
        for number, item in enumerate(self.optional(key, list) or []):
            if not isinstance(item, dict):
                raise self.error(f"{key} must be tables, each under [[{key}]]", key)
            yield Section(item, (*self.place, key, number), self.text, self.label)

    def read(self, kind: type[_T], **known: Any) -> _T:
        """Return the *kind* that the whole table is: each field that is not *known* yet is a key.

        It is called as the field in camelCase, or as its metadata says. A field that has a default
        may be absent, and so may one that may be None.
        """
        hints = get_type_hints(kind)
        for each in fields(kind):  # type: ignore[arg-type]
            if each.name in known:
                continue
            key, needed = each.metadata.get("key", camel(each.name)), each.default is MISSING
            found = self._value(key, hints[each.name], needed=needed)
            known[each.name] = each.default if found is None and not needed else found
        return self.whole(kind(**known))

    def _value(self, key: str, kind: Any, *, needed: bool) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal:
            if needed:
                self.required(key, str)
            return self.one_of(key, arguments)
        if origin is tuple:
            return self.strings(key)
        if origin is UnionType:
            [inner, _] = arguments
            return self.time(key) if inner is datetime else self.optional(key, inner)
        if kind is bool:
            return self.flag(key)
        return self.required(key, kind) if needed else self.number(key)

    def whole(self, value: _T) -> _T:
        """Return *value*, which was read of this table, if that is all that the table holds."""
        self.done()
        return value

    def done(self) -> Self:
        """Refuse keys that nobody asked for: a mistyped demand must not be a demand dropped."""
        for key in self.values:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                known = ", ".join(sorted(self._asked))
                hint = f"did you mean {near[0]}?" if near else f"known: {known}"
                raise self.error(f"{self._name()} has no key {key!r}", key, hint)
        return self

    def _name(self) -> str:
        tables = [part for part in self.place if isinstance(part, str)]
        if not tables:
            return "the policy"
        array = isinstance(self.place[-1], int)
        return f"[[{'.'.join(tables)}]]" if array else f"[{'.'.join(tables)}]"


def read_sections(text: bytes, label: str) -> Section:
    """Parse *text* as TOML and return its root; ``InputError`` names *label* and the line."""
    try:
        decoded = text.decode("utf-8")
        values = tomllib.loads(decoded)
    except UnicodeDecodeError as error:
        raise InputError(f"{label} is not UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise InputError(f"{label} is not valid TOML: {error}") from error
    return Section(values, (), decoded.replace("\r\n", "\n"), label)


_Item = TypeVar("_Item")


def check_policy(policy: Policy, root: Section, now: datetime) -> None:
    """Raise ``InputError``, with its line, for a *policy* that cannot mean what it says."""
    if policy.epoch < 1:
        raise root.error("epoch must be 1 or more; each change of the policy raises it", "epoch")
    if policy.expires <= now:
        raise root.error(
            f"the policy expired on {in_utc(policy.expires)}, and it is {in_utc(now)} here",
            "expires",
            "set this machine's clock if it is wrong; else ask its publisher for the next epoch",
        )
    if not policy.systems:
        raise root.error("the policy needs systems: those that make a release complete", "systems")
    for key in ("builders", "logs", "witnesses", "promoters"):
        ids = [each.id for each in getattr(policy, key)]
        _check_unique(root, key, ids, f"two {key} have the id {{}}", same_name)
    for key in ("builders", "promoters"):
        _check_signers(root, key, [each.signer for each in getattr(policy, key)])
    _check_builders(policy, root)
    _check_quorum(policy, root)
    _check_logs(policy, root)


def check_counts(
    policy: Policy, builder_id: str, source: str, system: str | None, now: datetime
) -> None:
    """Raise ``InputError`` where no quorum by *policy* could count what the builder says now.

    What is logged is so for good: a statement about another *source*, or a *system* that is not the
    builder's, would stay there. A *system* of None is not known yet.
    """
    if policy.source is not None and source != policy.source:
        raise InputError(
            f"the policy is of {policy.source}, and this checkout is of {source}",
            hint="name the policy of this source (--policy FILE); or, where the source has moved, "
            f'write source = "{source}" into it',
        )
    builder = next((each for each in policy.builders if each.id == builder_id), None)
    if builder is None:
        raise InputError(
            f"the policy knows no builder {builder_id}",
            hint="add it: nix-seed policy add-builder; or name another one with --builder",
        )
    if system is not None and system not in builder.systems:
        systems = ", ".join(sorted(builder.systems))
        raise InputError(
            f"the policy does not let {builder.id} build for {system}",
            hint=f"it may for {systems}; or add {system} to its systems in the policy",
        )
    if builder.revoked_at is not None and builder.revoked_at <= now:
        raise InputError(
            f"{builder.id} was revoked at {in_utc(builder.revoked_at)}",
            hint="what it says now counts for nothing; sign as another builder of the policy",
        )
    if (since := builder.not_before) is not None and now < since:
        raise InputError(
            f"{builder.id} counts from {in_utc(since)} on, and it is {in_utc(now)} here",
            hint="set this machine's clock if it is wrong; else attest after that, or change its"
            " notBefore in the policy",
        )


def policy_warnings(policy: Policy, now: datetime) -> tuple[str, ...]:
    """Return what is allowed and yet worth saying, one line each."""
    found = []
    for system in policy.systems:
        live = [b for b in _able(policy, system) if b.revoked_at is None or b.revoked_at > now]
        number = len(independent_builders(live, policy.quorum.distinct))
        if number < policy.quorum.threshold:
            found.append(
                f"{system}: only {plural(number, 'builder is', 'builders are')} not revoked by now;"
                f" what is built from now on cannot reach {policy.quorum.threshold}"
            )
    if policy.quorum.threshold == 1:
        found.append("one builder alone decides: threshold is 1")
    if policy.quorum.logs == 0:
        found.append("no log is demanded: what a builder said need not be public")
    if not policy.quorum.distinct:
        found.append("distinct is empty: one operator may run every builder")
    for ledger in policy.ledgers:
        if len(ledger.rpc) == 1:
            found.append(
                f"ledger {ledger.id}: one node alone, in rpc, is believed whatever it says"
            )
    if (policy.expires - now).days < 30:
        found.append(f"the policy expires in {max((policy.expires - now).days, 0)} days")
    return tuple(found)


def _check_signers(root: Section, key: str, signers: Sequence[SignedBy]) -> None:
    message = f"two {key} have one signer, {{}}: they would be one voice under two names"
    _check_unique(root, key, signers, message, _same_signer, signer_name)
    # Refuse who is trusted for every repository, and once more for one of them.
    certified = [each for each in signers if isinstance(each, CertificateIdentity)]
    anywhere = {_name(each) for each in certified if not each.repository}
    for number, each in enumerate(signers):
        if isinstance(each, PublicKey) or not each.repository or _name(each) not in anywhere:
            continue
        raise _at(root, key, number).error(
            f"{each} is trusted for every repository, too: that would be one voice under two names"
        )


def _same_signer(signer: SignedBy) -> Hashable:
    """Fold what may be one signer written twice: verification itself compares exactly."""
    if isinstance(signer, PublicKey):
        return signer
    return _name(signer), signer.repository.rstrip("/").casefold()


def _name(signer: CertificateIdentity) -> tuple[str, str]:
    return signer.issuer.rstrip("/").casefold(), signer.subject.casefold()


def _check_unique(
    root: Section,
    key: str,
    items: Iterable[_Item],
    message: str,
    fold: Callable[[_Item], Hashable],
    show: Callable[[_Item], str] = str,
) -> None:
    seen: set[Hashable] = set()
    for number, item in enumerate(items):
        if fold(item) in seen:
            raise _at(root, key, number).error(message.format(show(item)))
        seen.add(fold(item))


def _check_builders(policy: Policy, root: Section) -> None:
    for number, builder in enumerate(policy.builders):
        section = _at(root, "builders", number)
        if (
            builder.not_before is not None
            and builder.revoked_at is not None
            and builder.revoked_at <= builder.not_before
        ):
            raise section.error(
                f"{builder.id} is revoked before it begins: its word never counts", "revokedAt"
            )
        for name in policy.quorum.distinct:
            if builder.attribute(name) is None:
                raise section.error(
                    f"{builder.id} has no {name}, by which builders must be distinct"
                )


def _check_quorum(policy: Policy, root: Section) -> None:
    section = root.table("quorum")
    wanted = policy.quorum.threshold
    if wanted < 1:
        raise section.error(
            f"threshold is {wanted}: every image would pass, with nobody's word for it", "threshold"
        )
    for system in policy.systems:
        able = independent_builders(_able(policy, system), policy.quorum.distinct)
        if len(able) < wanted:
            by = " and ".join(policy.quorum.distinct)
            whom = f"builders distinct in {by}" if by else "builders"
            raise section.error(
                f"threshold is {wanted}, but only {len(able)} {whom} can build {system}: "
                "it could never be reached",
                "threshold",
            )
    if policy.quorum.promoters > len(policy.promoters):
        raise section.error(
            f"{policy.quorum.promoters} promoters must sign, but there are {len(policy.promoters)}",
            "promoters",
        )
    if policy.promoters and policy.quorum.promoters == 0:
        raise section.error("there are promoters, and none of them must sign", "promoters")


def _able(policy: Policy, system: str) -> list[Builder]:
    return [builder for builder in policy.builders if system in builder.systems]


def _check_logs(policy: Policy, root: Section) -> None:
    section = root.table("quorum")
    # One log under two URLs is one log: what tells logs apart is who signs their checkpoints.
    logs, der = [log.key for log in policy.logs], attrgetter("der")
    origins, witnesses = (log.origin for log in policy.logs), (w.key for w in policy.witnesses)
    message = "two logs have the key {}: one log would count as two"
    _check_unique(root, "logs", logs, message, der)
    _check_unique(root, "logs", origins, "two logs have origin {}", str.casefold)
    _check_unique(root, "witnesses", witnesses, "two witnesses have the key {}", der)
    for number, witness in enumerate(policy.witnesses):
        if witness.key.der in {log.key.der for log in policy.logs}:
            raise _at(root, "witnesses", number).error(
                f"the witness {witness.id} has a log's key: a log cannot witness itself", "key"
            )
    if policy.quorum.logs > len(policy.logs):
        wanted = plural(policy.quorum.logs, "log")
        raise section.error(f"the policy demands {wanted} and lists {len(policy.logs)}", "logs")
    if policy.quorum.witnesses > len(policy.witnesses):
        wanted = plural(policy.quorum.witnesses, "witness", "witnesses")
        listed = len(policy.witnesses)
        raise section.error(f"the policy demands {wanted} and lists {listed}", "witnesses")
    if policy.quorum.witnesses and not policy.quorum.logs:
        raise section.error("witnesses watch logs, and no log is demanded", "witnesses")


def _at(root: Section, key: str, number: int) -> Section:
    return Section(root.values[key][number], (key, number), root.text, root.label)
