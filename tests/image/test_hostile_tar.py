"""Where readers of tars differ, or a name cannot be made, an entry is refused by its own fault."""

from __future__ import annotations

import io
import tarfile

import pytest

from nix_seed.core.errors import CheckedFalse
from nix_seed.image.read.tar import Entry, EntryKind, read_entries

_END = bytes(1024)


def header(
    name: bytes = b"a", kind: bytes = b"0", target: bytes = b"", **fields: bytes | int
) -> bytes:
    """A ustar header with its checksum; *fields* are written over it at ``at_N``."""
    made = bytearray(512)
    made[0 : len(name)] = name
    made[100:108], made[108:116], made[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    made[124:136], made[136:148] = b"00000000000\0", b"00000000001\0"
    made[156:157], made[257:265] = kind, b"ustar\x0000"
    made[157 : 157 + len(target)] = target
    for place, value in fields.items():
        at = int(place.removeprefix("at_"))
        assert isinstance(value, bytes)
        made[at : at + len(value)] = value
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def extended(kind: bytes, body: bytes) -> bytes:
    """An extended header of *kind*, and its body."""
    size = b"%011o\0" % len(body)
    return header(b"x", kind, at_124=size) + body + bytes(-len(body) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """A PAX record."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def pax(key: bytes, value: bytes) -> bytes:
    return extended(b"x", record(key, value))


def read(data: bytes) -> list[Entry]:
    return list(read_entries(io.BytesIO(data + _END), "a layer"))


REFUSED = {
    "empty target": (header(kind=b"2"), "'a' is a link to nothing"),
    "empty target of a hard link": (header(kind=b"1"), "'a' is a link to nothing"),
    "NUL in a target": (pax(b"linkpath", b"x\0y") + header(kind=b"2"), "whose target holds a NUL"),
    "NUL in a name": (pax(b"path", b"x\0y") + header(), "has a NUL in its name"),
    "sparse file": (header(kind=b"S"), "'a' is a sparse file"),
    "sparse file of PAX": (pax(b"GNU.sparse.major", b"1") + header(), "'a' is a sparse file"),
    "PAX record that ends early": (
        extended(b"x", b"20 path=abc\n") + header(),
        "has a malformed PAX record",
    ),
    "an extended header at the end": (pax(b"path", b"x"), "that describes nothing"),
    "overlong target": (
        pax(b"linkpath", b"x" * 5000) + header(kind=b"2"),
        "whose target is 5000 bytes long",
    ),
    "overlong target by GNU's": (
        extended(b"K", b"x" * 4096) + header(kind=b"2"),
        "whose target is 4096 bytes long",
    ),
    "mode in Python's octal": (header(at_100=b"0o644\0\0\0"), "a mode of b'0o644"),
    "mode with a sign": (header(at_100=b"+000644\0"), "a mode of"),
    "mode with underscores": (header(at_100=b"000_644\0"), "a mode of"),
    "size with an eight": (header(at_124=b"00000000008\0"), "a size of"),
    "size with words behind it": (header(at_124=b"0000000\0junk"), "a size of"),
    "size below nothing": (header(at_124=b"\xff" * 12), "negative size"),
    "time with a blank inside": (header(at_136=b"0000 000001\0"), "a time of"),
    "PAX size with a sign": (pax(b"size", b"+0") + header(), "where a PAX number is wanted"),
    "PAX size with underscores": (pax(b"size", b"1_0") + header(), "where a PAX number is wanted"),
    "PAX size of 5,000 digits": (pax(b"size", b"1" * 5000) + header(), "a PAX number is wanted"),
    "PAX time of other digits": (
        pax(b"mtime", "\u0661".encode()) + header(),
        "where a PAX number is wanted",
    ),
    "PAX time with words": (pax(b"mtime", b"1.5e3") + header(), "where a PAX number is wanted"),
    "two names in extended headers": (
        extended(b"L", b"one\0") + pax(b"path", b"two") + header(),
        "two extended headers that say the same",
    ),
    "a name in a global header": (
        extended(b"g", record(b"path", b"other")) + header(),
        "in a global header",
    ),
    "a file called as a directory": (header(b"a/", b"\0"), "its name ends as a directory's"),
    "entries behind an empty block": (bytes(512) + header(), "goes on after an empty block"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_readers_read_differently_is_refused(case: str) -> None:
    data, words = REFUSED[case]
    with pytest.raises(CheckedFalse) as caught:
        read(data)
    assert words in caught.value.message


def test_what_is_odd_and_clear_is_read() -> None:
    times = {header(at_136=b"\xff" * 12): -1, header(at_136=b"       17 \0\0"): 0o17}
    times[header(at_136=b"\x80" + bytes(10) + b"\7")] = 7
    times[pax(b"mtime", b"-3.25") + header()] = -3
    for data, time in times.items():
        assert [entry.mtime for entry in read(data)] == [time]
    (long,) = read(pax(b"linkpath", b"x" * 4095) + header(kind=b"2"))
    assert long.target == b"x" * 4095
    (named,) = read(extended(b"g", record(b"comment", b"a commit")) + header(b"a/", b"5"))
    assert (named.kind, named.name) == (EntryKind.DIRECTORY, b"a")


def test_a_long_name_is_in_two_fields() -> None:
    """Star keeps times where the prefix ends; GNU's older magic keeps other things in it."""
    long = b"p" * 150
    old = header(at_257=b"ustar  \0", at_345=long)
    star = header(at_345=long[:131] + b"17777777777 1777777777 ", at_508=b"tar\0")
    for data, name in ((header(at_345=long), long + b"/a"), (old, b"a")):
        assert [entry.name for entry in read(data)] == [name]
    assert [entry.name for entry in read(star)] == [long[:131] + b"/a"]


def test_numbers_are_read_as_python_reads_them() -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
            for time in (0, 1, 8**11 - 1, 8**11, -1, -(2**40)):
                info = tarfile.TarInfo("a")
                info.mtime = time
                made.addfile(info)
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as reader:
            theirs = [member.mtime for member in reader]
        buffer.seek(0)
        assert [entry.mtime for entry in read_entries(buffer, "a layer")] == theirs
