"""Machine code is found wherever it is packed, and nothing else is taken for it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from nix_seed.roots.machine_code import find_machine_code, look_at

ELF = b"\x7fELF" + bytes(60)


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def ar(**files: bytes) -> bytes:
    text = b"!<arch>\n"
    for name, data in files.items():
        text += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        text += data + b"\n" * (len(data) % 2)
    return text


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PLAIN = tar(readme=b"text", prog=ELF)
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_archives(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "file"
    file.write_bytes(compress(PLAIN))
    found = find_machine_code(file)
    assert found is not None
    assert (found.holds, found.inside) == (True, "prog")
    file.write_bytes(compress(tar(readme=b"text", more=bytes(5000))))
    found = find_machine_code(file)
    assert found is not None
    assert found.holds is False


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        (ELF, ""),
        (ar(debian=b"2.0\n", control=b"odd", data=lzma.compress(PLAIN)), "data/prog"),
        (ar(libx=b"text", member=ELF), "member"),
        (zipped(a=b"text", b=ELF), "b"),
        (tar(inner=gzip.compress(PLAIN)), "inner/prog"),
        (b"#!/bin/sh\nunpack $0\n" + bytes(300_000) + ELF, ""),
        (b"\xcf\xfa\xed\xfe" + bytes(60), ""),
        (b"\xca\xfe\xba\xbe\0\0\0\x02" + bytes(60), ""),
        (b"MZ" + bytes(58) + b"\x80\0\0\0", ""),
    ],
)
def test_found(tmp_path: Path, data: bytes, inside: str) -> None:
    (tmp_path / "file").write_bytes(data)
    found = find_machine_code(tmp_path / "file")
    assert found is not None
    assert (found.holds, found.inside, found.size) == (True, inside, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ is how this text begins",
        b"\xca\xfe\xba\xbe\0\0\0\x37 a class of Java",
        b"\x1f\x8b\x08 damaged",
        lzma.compress(bytes(1000))[:40],
        b"!<arch>\ncut short",
        PLAIN[:700],
        b"BZh9 damaged",
        b"\x28\xb5\x2f\xfd damaged",
        zipped(a=b"text"),
    ],
)
def test_not_found(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    found = find_machine_code(tmp_path / "file")
    assert found is not None
    assert found.holds is False


def test_trees_links_and_absent_paths(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "prog").write_bytes(ELF)
    (tree / "a").symlink_to("bin/prog")
    found = find_machine_code(tree)
    assert found is not None
    assert (found.holds, found.inside) == (True, "bin/prog")
    assert find_machine_code(tmp_path / "absent") is None


def test_one_file(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "prog").write_bytes(ELF)
    (tree / "sh").symlink_to("prog")
    (tree / "script").write_text("#!/bin/sh\n")
    (tree / "outside").symlink_to("/etc/passwd")
    (tree / "loop").symlink_to("loop")
    file = look_at(tree / "sh", tree)
    assert file is not None
    assert (file.form, file.size) == ("ELF", 64)
    script = look_at(tree / "script", tree)
    assert script is not None
    assert script.form == "script"
    # What lies outside of the tree is another path's, and not this one's to speak of.
    assert look_at(tree / "outside", tree) is None
    assert look_at(tree / "absent", tree) is None
