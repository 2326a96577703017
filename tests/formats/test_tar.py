from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.oci import tar
from support.programs import need, run

KINDS = {tar.FILE: tarfile.REGTYPE, tar.SYMLINK: tarfile.SYMTYPE, tar.DIRECTORY: tarfile.DIRTYPE}
parts = st.binary(min_size=1, max_size=255).filter(
    lambda part: not set(part) & {0, 0x2F} and not part.startswith(b".wh.")
)
paths = st.lists(parts, min_size=1, max_size=5).map(b"/".join)
targets = st.binary(min_size=1, max_size=300).filter(lambda target: 0 not in target)


def read_header(header: bytes) -> tarfile.TarInfo:
    with tarfile.open(
        fileobj=io.BytesIO(header + tar.END), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        member = archive.next()
    assert member is not None
    return member


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@given(paths, st.sampled_from([0o444, 0o555]), st.integers(0, 1 << 40))
@example(b"a" * 100, 0o444, 0)
@example(b"a" * 101, 0o444, 0)
@example(b"a" * 155 + b"/" + b"b" * 100, 0o444, 0)
@example(b"a" * 156 + b"/" + b"b" * 100, 0o444, 0)
@example(b"n", 0o555, (8 << 30) - 1)
@example(b"n", 0o555, 8 << 30)
def test_a_file_reads_back(name: bytes, mode: int, size: int) -> None:
    header = tar.header(name, tar.FILE, mode, size)
    assert len(header) % tar.BLOCK == 0
    member = read_header(header)
    assert (raw(member.name), member.mode, member.size) == (name, mode, size)
    assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (1, 0, 0, "", "")
    assert member.isreg()


@given(paths, targets)
@example(b"a", b"t" * 100)
@example(b"a", b"t" * 101)
def test_a_symlink_reads_back(name: bytes, target: bytes) -> None:
    member = read_header(tar.header(name, tar.SYMLINK, 0o777, target=target))
    assert member.issym()
    assert (raw(member.name), raw(member.linkname)) == (name, target)


@given(paths)
@example(b"d" * 99)
@example(b"d" * 100)
@example(b"p" * 155 + b"/" + b"d" * 99)
def test_a_directory_reads_back(name: bytes) -> None:
    member = read_header(tar.header(name + b"/", tar.DIRECTORY, 0o555))
    assert member.isdir()
    assert raw(member.name) == name


@pytest.mark.parametrize(
    ("name", "size", "blocks"),
    [
        (b"short", 0, 1),
        (b"a" * 155 + b"/" + b"b" * 100, 0, 1),
        (b"\xff" * 100, 0, 1),
        (b"a" * 101, 0, 3),
        ("ä".encode(), 0, 3),
        (b"large", 8 << 30, 3),
    ],
)
def test_pax_only_where_needed(name: bytes, size: int, blocks: int) -> None:
    assert len(tar.header(name, tar.FILE, 0o444, size)) == blocks * tar.BLOCK


@pytest.mark.parametrize("length", range(80, 120))
def test_a_pax_record_counts_its_own_digits(length: int) -> None:
    name = b"x" * 101 + b"y" * length
    header = tar.header(name, tar.FILE, 0o444)
    size, _, rest = header[tar.BLOCK :].partition(b" ")
    assert (size + b" " + rest)[: int(size)] == size + b" path=" + name + b"\n"


def test_gnu_tar_unpacks_every_kind_of_name(tmp_path: Path) -> None:
    names = [
        b"a" * 250,
        "ä".encode(),
        b"raw\xff",
        b"\xff" * 120,
        b"new\nline",
        b"p" * 90 + b"/q" * 9,
    ]
    archive = b"".join(tar.header(name, tar.FILE, 0o444) for name in names) + tar.END
    listed = run(
        need("tar"), "--list", "--quoting-style=escape", stdin=archive, env={"LC_ALL": "C"}
    )
    assert len(listed.splitlines()) == len(names)
    done = run(need("tar"), "-x", "-C", tmp_path, stdin=archive)
    assert done == b""
    for name in names:
        assert (
            Path(str(tmp_path).encode().decode()).joinpath(name.decode(errors="surrogateescape"))
        ).exists()


@pytest.mark.parametrize("name", [b".wh.x", b"a/.wh.x/b", b"a/.wh..wh..opq"])
def test_a_whiteout_is_refused(name: bytes) -> None:
    with pytest.raises(InputError, match=r"names that begin with \.wh\. mean deletion there"):
        tar.header(name, tar.FILE, 0o444)


def test_a_name_that_only_contains_a_whiteout_prefix_is_fine() -> None:
    assert read_header(tar.header(b"a.wh.x", tar.FILE, 0o444)).name == "a.wh.x"


def test_entries_are_sorted_below_explicit_parents() -> None:
    entries = [
        tar.TarEntry(b"etc/a-/x", tar.FILE, 0o644),
        tar.TarEntry(b"tmp", tar.DIRECTORY, 0o1777),
        tar.TarEntry(b"etc/a", tar.SYMLINK, 0o777, b"b"),
    ]
    order = [(entry.name, entry.mode) for entry in tar.in_order(entries)]
    assert order == [
        (b"etc", 0o755),
        (b"etc/a", 0o777),
        (b"etc/a-", 0o755),
        (b"etc/a-/x", 0o644),
        (b"tmp", 0o1777),
    ]


def test_entries_that_contradict_are_refused() -> None:
    file = tar.TarEntry(b"etc", tar.FILE, 0o644)
    with pytest.raises(InputError, match="b'etc' is given twice for one layer"):
        list(tar.in_order([file, file]))
    with pytest.raises(InputError, match="b'etc/x' lies below b'etc', which is not a directory"):
        list(tar.in_order([file, tar.TarEntry(b"etc/x", tar.FILE, 0o644)]))


@pytest.mark.parametrize("name", [b"", b"/etc", b"a/", b"a//b", b"../a", b"a/./b", b"a\0"])
def test_an_entry_must_be_plain_and_relative(name: bytes) -> None:
    with pytest.raises(InputError, match="is not a relative path in plain form"):
        tar.TarEntry(name, tar.FILE, 0o644)
