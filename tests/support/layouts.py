"""OCI image layouts made by hand: tars of Python's tarfile, compressed and described here.

They share no code with the product's own writer, so that reader and writer cannot agree on a
mistake; and they can hold what the product never writes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

ARCHITECTURE = "amd64"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def file(name: str, data: bytes = b"", mode: int = 0o444) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file."""
    return _member(name, tarfile.REGTYPE, mode), data


def directory(name: str, mode: int = 0o555) -> tuple[tarfile.TarInfo, bytes]:
    """A directory."""
    return _member(name, tarfile.DIRTYPE, mode), b""


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A symlink, its target verbatim."""
    info = _member(name, tarfile.SYMTYPE, 0o777)
    info.linkname = target
    return info, b""


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """A hard link to another name of the tar."""
    info = _member(name, tarfile.LNKTYPE, 0o444)
    info.linkname = target
    return info, b""


def special(name: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """A device or a pipe."""
    return _member(name, kind, 0o666), b""


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1
    return info


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """One tar, names as they are given, however bad."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def frames(data: bytes, size: int = 1 << 20) -> bytes:
    """Compress *data* as independent zstd frames with a seek table as the last, skippable one."""
    compressor = zstandard.ZstdCompressor(level=3)
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    packed = [compressor.compress(part) for part in parts]
    table = b"".join(
        len(blob).to_bytes(4, "little") + len(part).to_bytes(4, "little")
        for blob, part in zip(packed, parts, strict=True)
    )
    table += len(parts).to_bytes(4, "little") + b"\0" + 0x8F92EAB1.to_bytes(4, "little")
    head = 0x184D2A5E.to_bytes(4, "little") + len(table).to_bytes(4, "little")
    return b"".join(packed) + head + table


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "zstd": (f"{_LAYER}+zstd", frames),
    "gzip": (f"{_LAYER}+gzip", lambda data: gzip.compress(data, 1, mtime=0)),
    "none": (_LAYER, lambda data: data),
}


def write_layout(
    path: Path,
    tars: Sequence[bytes],
    *,
    compression: str = "zstd",
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write an image of *tars*, lowest first, as a layout at *path*, and return *path*."""
    (path / "blobs/sha256").mkdir(parents=True)
    media_type, pack = PACKERS[compression]
    layers = [_put(path, pack(data), media_type) for data in tars]
    document = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [_digest(data) for data in tars]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _put(path, _json(document), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    entry = _put(path, _json(manifest), manifest["mediaType"])  # type: ignore[arg-type]
    index = {"schemaVersion": 2, "manifests": [entry]}
    (path / "index.json").write_bytes(_json(index))
    (path / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return path


def _put(path: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = _digest(data)
    (path / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
