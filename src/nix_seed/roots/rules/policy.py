"""What may an image rest on? Rules over its trust roots, and which of them it breaks.

::

    executed-seed-max=1KiB   no executed binary that was not built here is larger (0: there is none)
    binary-max=0             nothing fetched or added holds more machine code, archives included
    built-here               every path that was built was built here, none substituted
    no-impure                no derivation may see more than its inputs
    no-host                  no program of the building machine is executed

A rule that cannot be judged, because a file is not here, is neither kept nor broken.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any, Self

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.flake.rules.signatures import Signers
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.roots.rules.roots import HostProgram, Impurity

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_UNITS |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SIZE = re.compile(r"(\d{1,15})\s*([a-z]*)\Z", re.IGNORECASE)
_SIZES = ("executed-seed-max", "binary-max")
_FLAGS = ("built-here", "no-impure", "no-host")


@dataclass(frozen=True, slots=True)
class Binary:
    """Machine code that was not built: a file that is executed, or what holds one (*inside*).

    *size* in bytes and *digest* (SHA-256) are of the *file*, None where it is not in the store.
    """

    path: StorePath
    file: str
    size: int | None
    digest: str | None
    form: str | None
    inside: str = ""
    urls: tuple[str, ...] = ()
    used_by: StorePath | None = None

    def __str__(self) -> str:
        return f"{self.path}/{self.file}" if self.file else str(self.path)


@dataclass(frozen=True, slots=True)
class Substituted:
    """An output that was not built here, and who signed it (nobody: merely copied)."""

    path: StorePath
    signers: Signers


@dataclass(frozen=True, slots=True)
class Findings:
    """What the rules look at.

    *executed* seeds and other *binaries* differ in that the first are run as they are; *unseen*
    are ends whose content is not in the store, *unknown* paths whose origin nobody knows. *unread*
    are builders that are not in the store: they may be scripts, which programs of the *host* run.
    """

    executed: Sequence[Binary] = ()
    binaries: Sequence[Binary] = ()
    unseen: Sequence[StorePath] = ()
    unknown: Sequence[StorePath] = ()
    substituted: Sequence[Substituted] = ()
    absent: Sequence[StorePath] = ()
    host: Sequence[HostProgram] = ()
    unread: Sequence[str] = ()
    impure: Sequence[Impurity] = ()


@dataclass(frozen=True, slots=True)
class RootsJudgement:
    """Sentences: rules that are *broken*, by what; and what could *not* be *judged*."""

    broken: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RootsPolicy:
    """The rules that are asked for. Sizes in bytes, None: no such rule."""

    executed_seed_max: int | None = None
    binary_max: int | None = None
    built_here: bool = False
    no_impure: bool = False
    no_host: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``executed-seed-max=1KiB,built-here``."""
        values: dict[str, Any] = {}
        for word in filter(None, re.split(r"[,\s]+", text)):
            name, equals, value = word.partition("=")
            values[name] = value if equals else True
        return cls._of(values, "the policy")

    @classmethod
    def parse_file(cls, text: str, label: str) -> Self:
        """Read a TOML file whose table ``[roots]`` has the rules as its keys."""
        try:
            table = tomllib.loads(text).get("roots")
        except (ValueError, RecursionError) as error:  # as for a number of 5,000 digits
            raise InputError(f"{label} is not TOML: {error}") from error
        if not isinstance(table, dict):
            raise InputError(
                f"{label} has no table [roots]",
                hint='write [roots] and below it executed-seed-max = "1KiB"',
            )
        # `built-here = false` is no rule.
        return cls._of({name: value for name, value in table.items() if value is not False}, label)

    @classmethod
    def _of(cls, values: dict[str, Any], label: str) -> Self:
        for name, value in values.items():
            if name not in (*_SIZES, *_FLAGS):
                known = ", ".join((*_SIZES, *_FLAGS))
                raise InputError(f"{label}: there is no rule {name}", hint=f"rules are: {known}")
            if (name in _FLAGS) != (value is True):
                wanted = "takes no value" if name in _FLAGS else "needs a size, such as 1KiB"
                raise InputError(f"{label}: {name} {wanted}")
        if not values:
            raise InputError(
                f"{label} has no rule in it, so nothing could break it",
                hint="name one, such as executed-seed-max=1KiB",
            )
        return cls(
            executed_seed_max=_size(values, "executed-seed-max", label),
            binary_max=_size(values, "binary-max", label),
            built_here="built-here" in values,
            no_impure="no-impure" in values,
            no_host="no-host" in values,
        )


def _size(values: dict[str, Any], name: str, label: str) -> int | None:
    if name not in values:
        return None
    match = _SIZE.match(str(values[name]))
    if match is None or match[2].lower() not in _UNITS:
        raise InputError(f"{label}: {name}: {values[name]!r} is no size", hint="write 512, or 1KiB")
    return int(match[1]) * _UNITS[match[2].lower()]


def evaluate_roots(policy: RootsPolicy, found: Findings) -> RootsJudgement:
    """Hold *found* against every rule of *policy*; nothing is broken: an empty verdict."""
    broken: list[str] = []
    unjudged: list[str] = []
    if policy.executed_seed_max is not None:
        _limit("executed-seed-max", policy.executed_seed_max, found.executed, broken, unjudged)
    if policy.binary_max is not None:
        both = [*found.executed, *found.binaries]
        _limit("binary-max", policy.binary_max, both, broken, unjudged)
        unjudged += [f"binary-max: {path} is not here to be looked at" for path in found.unseen]
    if policy.built_here:
        broken += [
            f"built-here: {item.path} was not built here: {item.signers.words}"
            for item in found.substituted
        ]
        unjudged += [f"built-here: {path} is not here" for path in found.absent]
    if policy.no_impure:
        broken += [f"no-impure: {item.derivation}: {item.reason}" for item in found.impure]
    if policy.no_host:
        broken += [f"no-host: {item.program}, by {item.used_by}" for item in found.host]
        unjudged += [f"no-host: {name} is not here to be looked at" for name in found.unread]
    unjudged += [f"nothing is known of where {path} comes from" for path in found.unknown]
    return RootsJudgement(tuple(broken), tuple(unjudged))


def _limit(
    rule: str, most: int, items: Sequence[Binary], broken: list[str], unjudged: list[str]
) -> None:
    for item in items:
        if item.size is None:
            unjudged.append(f"{rule}: {item} is not here to be looked at")
        elif item.size > most:
            broken.append(f"{rule}: {item} has {item.size} bytes, more than {most}")
