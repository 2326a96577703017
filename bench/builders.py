"""The same closure by the tools one would otherwise use: buildah, and skopeo on a finished image.

Both end as we do: an OCI image layout on disk with compressed layers and digests. They make one
layer of everything, and check no NAR hash.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nix_seed.formats.nix.store_path import PathInfo

__all__ = ["buildah", "skopeo_recompress"]

_OCI = "application/vnd.oci.image"


def buildah(infos: Sequence[PathInfo], work: Path) -> None:
    """Copy the paths of *infos* into a container and commit it to a layout."""
    storage = ("--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs")
    container = _run("buildah", *storage, "from", "scratch")
    mounted = Path(_run("buildah", *storage, "mount", container))
    (mounted / "nix/store").mkdir(parents=True)
    _run("cp", "-a", *[str(info.path) for info in infos], mounted / "nix/store")
    _run("buildah", *storage, "commit", "--quiet", container, f"oci:{work / 'buildah'}")
    _run("buildah", *storage, "rm", container)


def skopeo_recompress(work: Path, compression: str) -> Callable[[], None]:
    """Return what copies a layout whose one layer is *work*'s ``layer.tar`` to a compressed one.

    Making that layout is not part of it: skopeo makes no images.
    """
    source = work / "layout"
    if not source.exists():
        _layout(source, work / "layer.tar")

    def copy() -> None:
        arguments = ["--quiet", "--dest-compress-format", compression, "--dest-compress"]
        target = f"oci:{work / compression}:image"
        _run("skopeo", "--insecure-policy", "copy", *arguments, f"oci:{source}:image", target)

    return copy


def _layout(directory: Path, layer: Path) -> None:
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = layer.stat().st_size
    layer.rename(blobs / digest)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _put(blobs, config, f"{_OCI}.config.v1+json"),
        "layers": [
            {"mediaType": f"{_OCI}.layer.v1.tar", "digest": f"sha256:{digest}", "size": size}
        ],
    }
    entry = _put(blobs, manifest, f"{_OCI}.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _put(blobs: Path, value: dict[str, Any], media_type: str) -> dict[str, Any]:
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True)
    assert done.returncode == 0, (command[:3], done.stderr.decode(errors="replace")[-1000:])
    return done.stdout.decode().strip()
