"""Finds machine code in files, trees and archives: what an image may rest on without having built.

Looked into, streaming: tar, ar (and thus .deb), zip; gzip, bzip2, xz and zstd around them. Other
files are searched for the mark of an ELF file. A search ends with the first program it finds.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.files import files_below
from nix_seed.core.values import dataclass
from nix_seed.formats.elf import find_loader

_MAGIC = {
    b"\x7fELF": "ELF",
    b"\xfe\xed\xfa\xce": "Mach-O",
    b"\xfe\xed\xfa\xcf": "Mach-O",
    b"\xce\xfa\xed\xfe": "Mach-O",
    b"\xcf\xfa\xed\xfe": "Mach-O",
    b"\0asm": "WebAssembly",
}
_AR = b"!<arch>\n"
_ELF = b"\x7fELF"
_CHUNK = 1 << 18
_DEEP = 4
# What one archive may unpack to before the search gives up: bombs must not stop an audit.
_MOST = 4 << 30


@dataclass(frozen=True, slots=True)
class ExaminedFile:
    """One file: its size in bytes, SHA-256 in hex, and *form* (``ELF``, ``script``, ``data``).

    *interpreter* is the program that a script's first line names, or the loader that an ELF file
    does: what Linux starts in its place.
    """

    size: int
    digest: str
    form: str
    interpreter: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Whether a file or tree holds machine code (None: too large to say), and where the first is.

    *size* in bytes of all its files.
    """

    size: int
    holds: bool | None
    inside: str = ""


class _TooMuch(Exception):
    pass


def look_at(path: Path, limit: Path) -> ExaminedFile | None:
    """Return what the file at *path* is, links followed within *limit*; None if there is none."""
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(limit.resolve()) or not real.is_file():
            return None
        with real.open("rb") as file:
            head = file.read(512)
            file.seek(0)
            loader = find_loader(file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        form = _form(head) or _plain_form(head)
        return ExaminedFile(real.stat().st_size, digest, form, _interpreter(head) or loader)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        raise CouldNotCheck(f"cannot read {path}: {error}") from error


def find_machine_code(path: Path) -> Found | None:
    """Search the file or tree at *path*; None if it is not there."""
    size, inside = 0, None
    sure = True
    try:
        if not os.path.lexists(path):
            return None
        for name in files_below(path):
            size += os.lstat(name).st_size
            if inside is None:
                try:
                    found = _search_file(name)
                except _TooMuch:
                    sure, found = False, None
                if found is not None:
                    below = os.path.relpath(name, path)
                    inside = "/".join(part for part in (below, found) if part not in ("", "."))
    except OSError as error:
        raise CouldNotCheck(f"cannot read {path}: {error.strerror}") from error
    return Found(size, True if inside is not None else False if sure else None, inside or "")


def _search_file(name: str) -> str | None:
    with open(name, "rb") as file:
        if zipfile.is_zipfile(file) and _form(_start(file)) is None:
            return _search_zip(file)
        file.seek(0)
        return _search(io.BufferedReader(file.raw, _CHUNK), _Meter(), 0)


def _start(file: io.BufferedReader) -> bytes:
    file.seek(0)
    return file.read(512)


class _Meter:
    """Counts what was unpacked."""

    def __init__(self) -> None:
        self.left = _MOST

    def add(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _TooMuch


def _search(stream: io.BufferedReader, meter: _Meter, depth: int) -> str | None:
    """Return where in *stream* the first machine code is (``""``: it is that), None if nowhere."""
    head = stream.peek(512)[:512]
    if _form(head) is not None:
        return ""
    if depth > _DEEP:
        raise _TooMuch
    inner = _decompressed(stream, head)
    # What is damaged or only looks like an archive is no archive: nothing can be run from it.
    with contextlib.suppress(tarfile.TarError, EOFError, *_damage(inner)):
        if inner is not None:
            return _search(inner, meter, depth + 1)
        if head.startswith(_AR):
            return _search_ar(stream, meter, depth)
        if head[257:262] == b"ustar":
            return _search_tar(stream, meter, depth)
        return _search_bytes(stream, meter)
    return None


def _damage(inner: io.BufferedReader | None) -> tuple[type[Exception], ...]:
    """Return what decompressors raise, beside OSError for lack of a name of their own."""
    if inner is None:
        return ()
    import zstandard

    return (lzma.LZMAError, zlib.error, zstandard.ZstdError, OSError)


def _decompressed(stream: io.BufferedReader, head: bytes) -> io.BufferedReader | None:
    opened: Any = None
    if head.startswith(b"\x1f\x8b"):
        opened = gzip.GzipFile(fileobj=stream)
    elif head.startswith(b"BZh"):
        opened = bz2.BZ2File(stream)
    elif head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        opened = lzma.LZMAFile(stream)  # noqa: SIM115
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        opened = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    return None if opened is None else io.BufferedReader(opened, _CHUNK)


def _search_tar(stream: io.BufferedReader, meter: _Meter, depth: int) -> str | None:
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=0) as archive:
        for member in archive:
            if not member.isfile():
                continue
            meter.add(member.size)
            file = archive.extractfile(member)
            if file is None:
                continue
            found = _search(io.BufferedReader(cast(Any, file), _CHUNK), meter, depth + 1)
            if found is not None:
                return _below(member.name, found)
            # A streamed archive keeps every header it has read.
            archive.members = []  # type: ignore[attr-defined]
    return None


def _search_ar(stream: io.BufferedReader, meter: _Meter, depth: int) -> str | None:
    stream.read(len(_AR))
    while len(header := stream.read(60)) == 60:
        size = int(header[48:58]) if header[48:58].strip().isdigit() else 0
        meter.add(size)
        part = io.BufferedReader(cast(Any, _Part(stream, size)), _CHUNK)
        found = _search(part, meter, depth + 1)
        if found is not None:
            return _below(header[:16].decode("ascii", "replace").strip(" /"), found)
        while part.read(_CHUNK):
            pass
        stream.read(size % 2)
    return None


def _search_zip(file: io.BufferedReader) -> str | None:
    meter = _Meter()
    # Encrypted, damaged or oddly compressed members cannot be run as they are either.
    with (
        contextlib.suppress(zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError),
        zipfile.ZipFile(file) as archive,
    ):
        for name in archive.namelist():
            with archive.open(name) as member:
                found = _search(io.BufferedReader(cast(Any, member), _CHUNK), meter, 1)
                if found is not None:
                    return _below(name, found)
    return None


def _search_bytes(stream: io.BufferedReader, meter: _Meter) -> str | None:
    """Look for an ELF file anywhere: self-extracting scripts and file systems hold them."""
    tail = b""
    while data := stream.read(_CHUNK):
        meter.add(len(data))
        if _ELF in tail + data:
            return ""
        tail = data[-3:]
    return None


class _Part(io.RawIOBase):
    """The next *size* bytes of a stream."""

    def __init__(self, stream: io.BufferedReader, size: int) -> None:
        self._stream = stream
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def _below(name: str, found: str) -> str:
    return f"{name}/{found}" if found else name


def _form(head: bytes) -> str | None:
    """Name the kind of machine code that begins so."""
    if head[:4] == b"\xca\xfe\xba\xbe" and 0 < int.from_bytes(head[4:8], "big") < 40:
        # Java's class files begin so too; their version is above 44.
        return "Mach-O"
    if head[:2] == b"MZ" and len(head) >= 64 and head[60:64] != b"\0\0\0\0":
        return "PE"
    return _MAGIC.get(head[:4])


def _plain_form(head: bytes) -> str:
    return "script" if head.startswith(b"#!") else "data" if b"\0" in head else "text"


def _interpreter(head: bytes) -> str:
    """Return what Linux would start for a file that begins so, nothing if that is no script."""
    line = head[2:].partition(b"\n")[0].split() if head.startswith(b"#!") else []
    return line[0].decode("utf-8", "backslashreplace") if line else ""
