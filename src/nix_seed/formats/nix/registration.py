"""The registration format: what ``nix-store --dump-db`` prints and ``--load-db`` reads.

A record is a line each for the path, the NAR's SHA-256 in hex, its size in bytes, the deriver (may
be empty), the number of references, and then every reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.ground.digests import NarHash
from nix_seed.ground.errors import InputError

__all__ = ["format_registration", "parse_registration"]


def parse_registration(text: str) -> tuple[PathInfo, ...]:
    """Read all records of *text*; ``InputError`` where it is not of this form."""
    try:
        return tuple(_records(iter(text.splitlines())))
    except (InputError, ValueError) as error:
        raise InputError(f"this is not what nix-store --dump-db prints: {error}") from error


def _records(lines: Iterator[str]) -> Iterator[PathInfo]:
    for path in lines:
        nar_hash = NarHash.parse(f"sha256:{_next(lines).removeprefix('sha256:')}")
        size = _number(_next(lines))
        _next(lines)
        references = [StorePath.parse(_next(lines)) for _ in range(_number(_next(lines)))]
        yield PathInfo(StorePath.parse(path), nar_hash, size, tuple(sorted(references)))


def _next(lines: Iterator[str]) -> str:
    line = next(lines, None)
    if line is None:
        raise ValueError("a record is cut short")
    return line


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def format_registration(infos: Iterable[PathInfo]) -> str:
    """Return the text that registers *infos*, which have no deriver."""
    return "".join(map(_record, infos))


def _record(info: PathInfo) -> str:
    lines = [str(info.path), info.nar_hash.hex, str(info.nar_size), "", str(len(info.references))]
    return "".join(f"{line}\n" for line in lines + [str(path) for path in info.references])
