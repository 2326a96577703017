"""Tar headers whose bytes depend on nothing but the entry (POSIX.1-2017 pax, "ustar" format).

Fixed for every entry: mtime 1 (Nix's own), uid and gid 0, no owner names, no extended attributes.
A pax header comes first only where ustar has no room or no meaning:

* a name or link target too long for ustar (100 bytes; a name also 155 before a slash);
* one that is not ASCII, for ustar leaves its encoding open while pax says UTF-8;
* a file of 8 GiB or more.

A name that is *not* UTF-8 has no spelling pax allows. GNU tar, Go's archive/tar (Docker, podman,
containerd, umoci, skopeo) and Python's tarfile all take ustar's bytes as they are, so such names go
there; one that is also too long goes raw into pax, which the same four read back unchanged.
``hdrcharset=BINARY`` would be the letter of the law, but GNU tar warns of it and Go ignores it.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass

BLOCK = 512
# Two empty blocks end an archive; GNU tar's filling up to 10 KiB is a habit of tape drives.
END = bytes(2 * BLOCK)

FILE, SYMLINK, DIRECTORY = b"0", b"2", b"5"
_PAX = b"x"
_MTIME = 1
_USTAR_SIZE = 8 << 30
_WHITEOUT = b".wh."


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry of a generic layer; *name* is relative, without a slash at its end.

    ``kind`` is ``FILE`` (with *data*), ``SYMLINK`` (with *data* as its target) or ``DIRECTORY``.
    """

    name: bytes
    kind: bytes
    mode: int
    data: bytes = b""

    def __post_init__(self) -> None:
        parts = self.name.split(b"/")
        if not all(parts) or b".." in parts or b"." in parts or b"\0" in self.name:
            raise InputError(f"{self.name!r} is not a relative path in plain form")


def padding(size: int) -> bytes:
    """The zeros that fill a file of *size* bytes up to a whole block."""
    return bytes(-size % BLOCK)


def header(name: bytes, kind: bytes, mode: int, size: int = 0, target: bytes = b"") -> bytes:
    """Return the header of one entry, a pax header before it where needed.

    *name* is relative; a directory's ends in a slash. ``InputError`` if a part of it begins with
    ``.wh.``, which layers read as a deletion (OCI image-spec, layer.md, "Whiteouts").
    """
    if _WHITEOUT in name and any(part.startswith(_WHITEOUT) for part in name.split(b"/")):
        raise InputError(
            f"{name.decode(errors='replace')!r} cannot be in an image layer: names that begin"
            " with .wh. mean deletion there",
            hint="leave the store path that holds it out of the image, or rename the file",
        )
    prefix, short = _split(name)
    if short is not None and len(target) <= 100 and size < _USTAR_SIZE and target.isascii():
        return _ustar(short, kind, mode, size=size, target=target, prefix=prefix)
    return _with_pax(name, kind, mode, size, target)


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Return ustar's (prefix, name), or name None where ustar has no place for it."""
    if not name.isascii() and _is_utf8(name):
        return b"", None
    if len(name) <= 100:
        return b"", name
    # The last slash that leaves something after it, no further right than the prefix's room.
    slash = name.rfind(b"/", 0, min(156, len(name) - 1))
    if slash <= 0 or len(name) - slash - 1 > 100:
        return b"", None
    return name[:slash], name[slash + 1 :]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _with_pax(name: bytes, kind: bytes, mode: int, size: int, target: bytes) -> bytes:
    prefix, short = _split(name)
    records = b""
    if len(target) > 100 or (not target.isascii() and _is_utf8(target)):
        records += _record(b"linkpath", target)
    if short is None:
        records += _record(b"path", name)
    if size >= _USTAR_SIZE:
        records += _record(b"size", b"%d" % size)
    plain = _ustar(
        name[:100] if short is None else short,
        kind,
        mode,
        size=size if size < _USTAR_SIZE else 0,
        target=target[:100],
        prefix=prefix,
    )
    if not records:
        return plain
    pax = _ustar(b"././@PaxHeader", _PAX, 0o644, size=len(records))
    return pax + records + padding(len(records)) + plain


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH key=value\\n``, where LENGTH counts its own digits too."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


@lru_cache(maxsize=64)
def _fixed(kind: bytes, mode: int) -> tuple[bytes, bytes, bytes, int]:
    """The parts of a header that its entry's name, size and target do not change, and their sum."""
    before = b"%07o\0" % mode + b"0000000\0" * 2
    middle = b"%011o\0" % _MTIME
    after = b"ustar\00000" + bytes(64) + b"0000000\0" * 2
    # While the sum is taken its own field counts as eight spaces.
    return before, middle, after, sum(before + middle + kind + after) + 8 * 0x20


def _ustar(
    name: bytes, kind: bytes, mode: int, *, size: int, target: bytes = b"", prefix: bytes = b""
) -> bytes:
    before, middle, after, fixed_sum = _fixed(kind, mode)
    digits = b"%011o\0" % size
    check_sum = fixed_sum + sum(name) + sum(digits) + sum(target) + sum(prefix)
    return b"".join(
        (
            name.ljust(100, b"\0"),
            before,
            digits,
            middle,
            b"%06o\0 " % check_sum,
            kind,
            target.ljust(100, b"\0"),
            after,
            prefix.ljust(167, b"\0"),
        )
    )


def spelled(entry: TarEntry) -> Iterator[bytes]:
    """Yield the bytes of *entry*: its header and, of a file, what it holds, padded."""
    if entry.kind == DIRECTORY:
        yield header(entry.name + b"/", entry.kind, entry.mode)
    elif entry.kind == SYMLINK:
        yield header(entry.name, entry.kind, 0o777, target=entry.data)
    else:
        yield header(entry.name, entry.kind, entry.mode, len(entry.data))
        yield entry.data
        yield padding(len(entry.data))


def archived(entries: Iterable[TarEntry]) -> Iterator[bytes]:
    """Yield the tar of *entries*, in order and with every parent directory, to its very end."""
    for entry in in_order(entries):
        yield from spelled(entry)
    yield END


def in_order(entries: Iterable[TarEntry]) -> Iterator[TarEntry]:
    """Yield *entries* sorted, parents first, with every missing parent as a directory of mode 0755.

    Siblings are sorted by the bytes of their names. ``InputError`` for one name given twice, or
    for an entry below one that is no directory.
    """
    found: dict[bytes, TarEntry] = {}
    for entry in entries:
        if entry.name in found:
            raise InputError(f"{entry.name!r} is given twice for one layer")
        found[entry.name] = entry
    for name in list(found):
        for parent in _parents(name):
            made = found.setdefault(parent, TarEntry(parent, DIRECTORY, 0o755))
            if made.kind != DIRECTORY:
                raise InputError(f"{name!r} lies below {parent!r}, which is not a directory")
    for name in sorted(found, key=lambda name: name.split(b"/")):
        yield found[name]


def _parents(name: bytes) -> Iterator[bytes]:
    parts = name.split(b"/")
    for length in range(1, len(parts)):
        yield b"/".join(parts[:length])
