"""The same closure by the tools one would otherwise use: buildah, and skopeo on a finished image.

Both end as we do: an OCI image layout on disk with compressed layers and digests. They make one
layer of everything (buildah) or recompress given layers (skopeo), and check no NAR hash.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nix_seed.formats.nix.store_path import PathInfo

__all__ = ["Built", "rows"]


@dataclass(frozen=True, slots=True)
class Built:
    """What a tool took, in seconds, or why it could not be measured."""

    name: str
    seconds: float | None
    note: str = ""


def rows(infos: Sequence[PathInfo], docker_archive: Path) -> Iterator[Built]:
    """Measure each tool on the paths of *infos*, or on the image in *docker_archive*."""
    with tempfile.TemporaryDirectory(prefix="bench-builders-") as directory:
        work = Path(directory)
        yield _timed("buildah, one layer, gzip", "buildah", lambda: _buildah(infos, work))
        yield _timed(
            "skopeo, uncompressed archive to layout, zstd",
            "skopeo",
            lambda: _skopeo(docker_archive, work / "zstd", "zstd"),
        )
        yield _timed(
            "skopeo, uncompressed archive to layout, gzip",
            "skopeo",
            lambda: _skopeo(docker_archive, work / "gzip", "gzip"),
        )


def _timed(name: str, program: str, action: object) -> Built:
    if shutil.which(program) is None:
        return Built(name, None, f"not measured: {program} is not installed")
    start = time.perf_counter()
    try:
        action()  # type: ignore[operator]
    except subprocess.CalledProcessError as error:
        return Built(name, None, f"failed: {error.stderr.decode(errors='replace')[-200:]}")
    return Built(name, time.perf_counter() - start)


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return done.stdout.decode().strip()


def _buildah(infos: Sequence[PathInfo], work: Path) -> None:
    storage = ("--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs")
    container = _run("buildah", *storage, "from", "scratch")
    mounted = Path(_run("buildah", *storage, "mount", container))
    (mounted / "nix/store").mkdir(parents=True)
    _run("cp", "-a", *[str(info.path) for info in infos], mounted / "nix/store")
    _run("buildah", *storage, "commit", "--quiet", container, f"oci:{work / 'buildah'}")
    _run("buildah", *storage, "rm", container)


def _skopeo(archive: Path, target: Path, compression: str) -> None:
    _run(
        "skopeo",
        "copy",
        "--quiet",
        "--dest-compress-format",
        compression,
        f"docker-archive:{archive}",
        f"oci:{target}:image",
    )
