"""Read a layer's tar as a stream: POSIX ustar, PAX and GNU long names (image-spec, layer.md).

Written for hostile input: what a layer of a build image has no use for (devices, set-user-ID bits,
sparse maps, names that climb) is refused by name, and nothing is held in memory but one header and
one buffer. Where readers of tars are known to differ, an entry is refused: what was checked here
must be what an engine unpacks.
"""

import enum
import re
import zlib
from collections.abc import Iterator
from typing import Protocol

from nix_seed.core.errors import CheckedFalse
from nix_seed.core.values import dataclass

_BLOCK = 512
_END = bytes(_BLOCK)
_LONGEST_HEADER = 1 << 20
_LONGEST_PATH = 4096
_LONGEST_TARGET = 4095
_LONGEST_NAME = 255
_SIZE = re.compile(rb"([0-9]{1,19})")
_TIME = re.compile(rb"(-?[0-9]{1,19})(?:\.[0-9]*)?")
_DECISIVE = (b"path", b"linkpath", b"size")
_REFUSED = {b"3": "a character device", b"4": "a block device", b"6": "a named pipe"}


class EntryKind(enum.Enum):
    """What an entry makes."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    DIRECTORY = b"5"


_KINDS = {kind.value: kind for kind in EntryKind} | {b"\0": EntryKind.FILE, b"7": EntryKind.FILE}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: *name* is relative and normal (``nix/store/…``; empty for the root itself).

    *target* is a symlink's text, verbatim, or a hard link's normal name. *mode* is permission bits,
    *mtime* whole seconds, *size* the bytes of a file's content.
    """

    kind: EntryKind
    name: bytes
    mode: int
    mtime: int
    size: int
    target: bytes


class TarStream(Protocol):
    """What a tar is read from."""

    def read(self, size: int, /) -> bytes:
        """Return *size* bytes, fewer only at the end."""
        ...

    def tell(self) -> int:
        """Return the position in the tar."""
        ...


def read_entries(stream: TarStream, label: str) -> Iterator[Entry]:
    """Yield the entries of *stream*; *label* names the layer in errors.

    After a file is yielded, exactly ``size`` bytes of content may be read from *stream*; what the
    caller leaves unread is skipped. Raises ``CheckedFalse`` for anything malformed or refused.
    """
    reader = _Reader(stream, label)
    while (entry := reader.next_entry()) is not None:
        yield entry
        reader.finish_body()


def entries_below(entries: Iterator[Entry], root: bytes, most: int, label: str) -> Iterator[Entry]:
    """Yield those of *entries* that are *root* or lie below it.

    Raises ``CheckedFalse`` once they have more than *most* bytes of files.
    """
    left = most
    for entry in entries:
        if entry.name == root or entry.name.startswith(root + b"/"):
            left -= entry.size
            if left < 0:
                name = root.decode(errors="backslashreplace")
                raise CheckedFalse(f"{label}: /{name} has more than the {most} bytes of its NAR")
            yield entry


class _Reader:
    """The position in one tar, and the extended headers that wait for their entry."""

    def __init__(self, stream: TarStream, label: str) -> None:
        self._stream = stream
        self._label = label
        self._offset = 0
        self._body_end = 0

    def next_entry(self) -> Entry | None:
        pax: dict[bytes, bytes] = {}
        while True:
            header = self._exactly(_BLOCK)
            if header == _END:
                if pax:
                    raise self._refuse("ends after an extended header that describes nothing")
                if self._stream.read(_BLOCK).strip(b"\0"):
                    raise self._refuse("goes on after an empty block, where a tar ends")
                return None
            self._check_sum(header)
            size = self._number(header[124:136], "size")
            typeflag = header[156:157]
            if typeflag == b"x":
                self._extend(pax, _pax_records(self._extended(size), self._label))
            elif typeflag == b"g":
                records = _pax_records(self._extended(size), self._label)
                if not records.keys().isdisjoint(_DECISIVE):
                    raise self._refuse("names or sizes its entries in a global header")
            elif typeflag in (b"L", b"K"):
                key = b"path" if typeflag == b"L" else b"linkpath"
                self._extend(pax, {key: self._extended(size).rstrip(b"\0")})
            else:
                return self._entry(header, typeflag, size, pax)

    def _extend(self, pax: dict[bytes, bytes], records: dict[bytes, bytes]) -> None:
        # Of two headers for one entry some readers take both, some the last, some GNU's.
        if not records.keys().isdisjoint(pax):
            raise self._refuse("has two extended headers that say the same of one entry")
        pax |= records

    def finish_body(self) -> None:
        """Skip what is left of the body and its padding."""
        if self._body_end == self._offset:
            return
        # The stream's own position is asked for, since the caller reads bodies directly from it.
        position = self._stream.tell()
        while position < self._body_end:
            skipped = len(self._stream.read(min(1 << 20, self._body_end - position)))
            if not skipped:
                raise self._refuse("ends in the middle of a file")
            position += skipped
        self._offset = position

    def _entry(self, header: bytes, typeflag: bytes, size: int, pax: dict[bytes, bytes]) -> Entry:
        spelt = pax.get(b"path") or _ustar_name(header)
        name = self._normal(spelt)
        if typeflag == b"S" or (pax and any(key.startswith(b"GNU.sparse") for key in pax)):
            raise self._refuse(f"{_show(name)} is a sparse file, which layers do not have")
        if typeflag in _REFUSED:
            raise self._refuse(f"{_show(name)} is {_REFUSED[typeflag]}")
        kind = _KINDS.get(typeflag)
        if kind is None:
            raise self._refuse(f"{_show(name)} has the unknown type {typeflag!r}")
        if kind is EntryKind.FILE and spelt.endswith(b"/"):
            raise self._refuse(f"{_show(name)} is a file, and its name ends as a directory's")
        mode = self._number(header[100:108], "mode")
        if mode & 0o6000:
            raise self._refuse(f"{_show(name)} is set-user-ID or set-group-ID")
        if b"size" in pax:
            size = self._decimal(pax[b"size"], _SIZE)
        if kind is not EntryKind.FILE:
            size = 0
        if size < 0:
            raise self._refuse(f"{_show(name)} has a negative size")
        if b"mtime" in pax:
            mtime = self._decimal(pax[b"mtime"], _TIME)
        else:
            mtime = self._number(header[136:148], "time")
        target = pax.get(b"linkpath") or header[157:257].split(b"\0", 1)[0]
        if kind in (EntryKind.HARD_LINK, EntryKind.SYMLINK):
            self._check_target(name, target)
        if kind is EntryKind.HARD_LINK:
            target = self._normal(target)
        self._body_end = self._offset + -(-size // _BLOCK) * _BLOCK
        return Entry(kind, name, mode & 0o1777, mtime, size, target)

    def _normal(self, name: bytes) -> bytes:
        if name.startswith(b"/"):
            raise self._refuse(f"{_show(name)} is an absolute name")
        parts = name.split(b"/")
        plain = b"" not in parts and b"." not in parts
        if not plain:
            parts = [part for part in parts if part not in (b"", b".")]
        if b".." in parts:
            raise self._refuse(f"{_show(name)} climbs out with ..")
        if len(name) > _LONGEST_NAME and (
            len(name) > _LONGEST_PATH or max(map(len, parts), default=0) > _LONGEST_NAME
        ):
            raise self._refuse(f"{_show(name[:60])}… is longer than a file name can be")
        if b"\0" in name:
            raise self._refuse(f"{_show(name)} has a NUL in its name")
        return name if plain else b"/".join(parts)

    def _check_target(self, name: bytes, target: bytes) -> None:
        if not target:
            raise self._refuse(f"{_show(name)} is a link to nothing")
        if b"\0" in target:
            raise self._refuse(f"{_show(name)} is a link whose target holds a NUL")
        if len(target) > _LONGEST_TARGET:
            raise self._refuse(f"{_show(name)} is a link whose target is {len(target)} bytes long")

    def _extended(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise self._refuse(f"has an extended header of {size} bytes")
        padded = -(-size // _BLOCK) * _BLOCK
        return self._exactly(padded)[:size]

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size:
            raise self._refuse("ends without the two empty blocks that end a tar")
        self._offset += size
        return data

    def _check_sum(self, header: bytes) -> None:
        wanted = self._number(header[148:156], "checksum")
        if wanted != _sum(header[:148]) + 8 * 0x20 + _sum(header[156:388]) + _sum(header[388:]):
            raise self._refuse(f"has a header with a wrong checksum at byte {self._offset - 512}")

    def _decimal(self, text: bytes, form: re.Pattern[bytes]) -> int:
        found = form.fullmatch(text)
        if found is None:
            raise self._refuse(f"has {text[:40]!r} where a PAX number is wanted")
        return int(found[1])

    def _number(self, field: bytes, label: str) -> int:
        """Read an octal field, or GNU's base-256 (first bit set), which may be negative."""
        digits = field.strip(b" \0")
        try:  # a "suppress" costs three times as much, four times an entry
            if digits.isdigit() or not digits:
                return int(digits or b"0", 8)
        except ValueError:
            pass
        if field[0] & 0x80:
            value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
            return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
        raise self._refuse(f"has a {label} of {field!r}, which is no number of a tar's")

    def _refuse(self, problem: str) -> CheckedFalse:
        return CheckedFalse(
            f"{self._label}: {problem}",
            hint="The layer was refused and nothing of it kept; use an image from a trusted maker.",
        )


def _ustar_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] != b"ustar\0":  # GNU's older magic keeps other things in the prefix field
        return name
    # Star keeps times at the end of that field.
    prefix = header[345 : 476 if header[508:] == b"tar\0" else 500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _sum(data: bytes) -> int:
    """Add up at most 256 bytes: that is Adler-32's lower half less 1, which cannot wrap there."""
    return (zlib.adler32(data) & 0xFFFF) - 1


def _pax_records(data: bytes, label: str) -> dict[bytes, bytes]:
    """Read ``<length> <key>=<value>\\n`` records (POSIX pax, "pax Extended Header")."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        length_text, space, _ = data[position : position + 20].partition(b" ")
        length = int(length_text) if space and length_text.isdigit() else 0
        record = data[position : position + length]
        key, equals, value = record[len(length_text) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n") or len(record) != length:
            raise CheckedFalse(f"{label}: has a malformed PAX record")
        records[key] = value[:-1]
        position += length
    return records


def _show(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
