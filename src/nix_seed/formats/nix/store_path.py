"""Store paths, their signatures, and the derivations that make them (Nix manual).

A store path is ``/nix/store/<32 of base 32>-<name>``.

A signature is Ed25519 over a fingerprint of path info. Like a public key it is written
``<name of the key>:<base64>``. The name is whatever its writer put there.

Derivations are the ``.drv`` files that evaluation writes:
``Derive([outputs],[inputDrvs],[inputSrcs],"system","builder",[args],[env])``, a tiny subset of the
ATerm format: strings, lists and tuples. Only that subset is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Self

from nix_seed.core.digests import NarHash, exact_base64
from nix_seed.core.errors import InputError
from nix_seed.core.reach import reach
from nix_seed.core.values import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


STORE_DIR = "/nix/store"
HASH_PART: Final = "[0-9abcdfghijklmnpqrsvwxyz]{32}"
"""What a store path's hash matches: Nix's base 32."""
_BASE_NAME = re.compile(rf"({HASH_PART})-([0-9a-zA-Z+\-._?=]{{1,211}})\Z")


@dataclass(frozen=True, slots=True, order=True)
class StorePath:
    """One path directly in the store, kept without its directory: ``<hash part>-<name>``."""

    base_name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an absolute store path; nothing below it, no other store directory."""
        directory, _, base_name = text.rpartition("/")
        match = _BASE_NAME.match(base_name)
        if directory != STORE_DIR or match is None or match[2] in (".", ".."):
            raise InputError(f"{text!r} is not a path in {STORE_DIR}")
        return cls(base_name)

    @classmethod
    def containing(cls, text: str) -> Self:
        """Read the store path that *text*, itself or a file below it, lies in."""
        return cls.parse("/".join(text.split("/")[:4]))

    def __hash__(self) -> int:
        # A text keeps its hash; a tuple of it, which a dataclass makes, does not.
        return hash(self.base_name)

    def __str__(self) -> str:
        return f"{STORE_DIR}/{self.base_name}"

    @property
    def hash_part(self) -> str:
        """The 32 characters that make the path unique."""
        return self.base_name[:32]

    @property
    def name(self) -> str:
        """What follows the hash part: ``gcc-12.2.0-lib``."""
        return self.base_name[33:]

    @property
    def package(self) -> str:
        """The name without its version, the same over updates: ``gcc-lib``.

        From the first part on that begins with a digit, what holds a digit is of the version:
        ``glibc-2.39-52-bin`` is ``glibc-bin``, ``zstd-1.5.0-rc1`` is ``zstd``.
        """
        parts = self.name.split("-")
        first = next((n for n, part in enumerate(parts) if n and part[:1].isdigit()), len(parts))
        rest = [part for part in parts[first:] if not any(map(str.isdigit, part))]
        return "-".join([*parts[:first], *rest]) or self.name


@dataclass(frozen=True, slots=True)
class PathInfo:
    """What Nix knows of a valid path: NAR hash, NAR size in bytes, sorted references."""

    path: StorePath
    nar_hash: NarHash
    nar_size: int
    references: tuple[StorePath, ...]


def closure_in(
    paths: Mapping[StorePath, PathInfo], roots: Iterable[StorePath]
) -> frozenset[StorePath]:
    """Return those of *roots* that are among *paths*, and all they refer to there."""
    return frozenset(reach(roots, lambda path: paths[path].references if path in paths else None))


@dataclass(frozen=True, slots=True)
class PathSignature:
    """A signature that names its *key*; *raw* are 64 bytes, if it is well made."""

    key: str
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name:base64``; what is no base64 becomes a signature of nothing."""
        name, raw = _split(text)
        return cls(name, raw or b"")

    def verifies(self, info: PathInfo, key: Ed25519PublicKey) -> bool:
        """Whether the owner of *key* signed *info*."""
        from cryptography.exceptions import InvalidSignature

        try:
            key.verify(self.raw, fingerprint(info))
        except InvalidSignature:
            return False
        return True


def fingerprint(info: PathInfo) -> bytes:
    """Return what is signed: ``1;<path>;<NAR hash>;<NAR size>;<references>``."""
    references = ",".join(map(str, sorted(info.references)))
    return f"1;{info.path};{info.nar_hash.nix32};{info.nar_size};{references}".encode()


def parse_public_keys(words: Iterable[str]) -> Mapping[str, Ed25519PublicKey]:
    """Read ``trusted-public-keys``; of two keys of one name the first counts, as in Nix."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    keys: dict[str, Ed25519PublicKey] = {}
    for word in words:
        name, raw = _split(word)
        if raw is None or len(raw) != 32:
            raise InputError(f"trusted-public-keys holds {word!r}, which is no public key of Nix")
        keys.setdefault(name, Ed25519PublicKey.from_public_bytes(raw))
    return keys


def _split(text: str) -> tuple[str, bytes | None]:
    name, _, value = text.partition(":")
    try:
        return name, exact_base64(value)
    except ValueError:
        return name, None


_STRING = r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_QUIET_STRING = r'"(?:[^"\\]*+(?:\\.[^"\\]*+)*+)"'
_PAIR = rf"\({_STRING},{_STRING}\)"
_OUTPUT = rf"\({_STRING},{_STRING},{_STRING},{_STRING}\)"


def _list(item: str) -> str:
    """Match a list of *item*; possessive, so that a malformed text costs no more than another."""
    return rf"\[(?:{item}(?:,{item})*+)?+\]"


def _quiet(pattern: str) -> str:
    """Let the strings of *pattern* capture nothing."""
    return pattern.replace(_STRING, _QUIET_STRING)


_NAMES = _list(_STRING)
_DERIVATION = re.compile(
    r"Derive\(({}),({}),({}),({}),({}),({}),({})\)".format(
        *map(
            _quiet,
            (
                _list(_OUTPUT),
                _list(rf"\({_STRING},{_NAMES}\)"),
                _NAMES,
                _STRING,
                _STRING,
                _NAMES,
                _list(_PAIR),
            ),
        )
    ),
    re.DOTALL,
)
_OUTPUTS = re.compile(_OUTPUT, re.DOTALL)
_INPUTS = re.compile(rf"\({_STRING},({_quiet(_NAMES)})\)", re.DOTALL)
_STRINGS = re.compile(_STRING, re.DOTALL)
_PAIRS = re.compile(_PAIR, re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Output:
    """One output: its path, where it is known before building, and its hash, if it is fixed."""

    path: StorePath | None
    hash_algorithm: str
    hash: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a ``.drv`` says: outputs by name, input derivations with the outputs used of each."""

    outputs: Mapping[str, Output]
    input_drvs: Mapping[StorePath, tuple[str, ...]]
    input_srcs: tuple[StorePath, ...]
    system: str
    builder: str
    args: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def is_fixed_output(self) -> bool:
        """Whether the content is agreed on beforehand (a download, as a rule)."""
        # An impure derivation (Nix 2.8's experimental feature) writes that word in place of a hash.
        return any(output.hash not in ("", "impure") for output in self.outputs.values())

    @classmethod
    def parse(cls, text: str, label: str) -> Self:
        """Read the text of a ``.drv`` file; *label* names it in errors."""
        match = _DERIVATION.fullmatch(text)
        if match is None:
            raise InputError(f"{label} is not a store derivation")
        outputs, drvs, srcs, system, builder, args, env = match.groups()
        try:
            return cls(
                outputs={_unescape(name): _output(*o) for name, *o in _OUTPUTS.findall(outputs)},
                input_drvs={
                    StorePath.parse(path): _strings(names) for path, names in _INPUTS.findall(drvs)
                },
                input_srcs=tuple(map(StorePath.parse, _strings(srcs))),
                system=_unescape(system[1:-1]),
                builder=_unescape(builder[1:-1]),
                args=_strings(args),
                env={_unescape(name): _unescape(value) for name, value in _PAIRS.findall(env)},
            )
        except InputError as error:
            raise InputError(f"{label} is not a store derivation: {error}") from error


def _output(path: str, algorithm: str, hash_: str) -> Output:
    return Output(StorePath.parse(path) if path else None, algorithm, hash_)


def _strings(text: str) -> tuple[str, ...]:
    return tuple(map(_unescape, _STRINGS.findall(text)))


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _NAMED.get(match[1], match[1]), text)


Graph = Callable[[StorePath], Derivation]
"""Reads a derivation of a store."""
