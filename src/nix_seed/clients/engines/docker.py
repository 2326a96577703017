"""Run an image with Docker Engine (23 and newer, for zstd layers)."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from nix_seed.clients.engines.base import Job
from nix_seed.clients.engines.containers import extra, run_container
from nix_seed.clients.image_layout import Image
from nix_seed.ground.errors import CheckedFalse, CouldNotCheck

__all__ = ["Docker"]

_LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")


@dataclass(frozen=True, slots=True)
class Docker:
    """The Docker that ``docker`` on PATH talks to."""

    name: str = "docker"

    def unavailable(self) -> str | None:
        """See ``Engine``."""
        if shutil.which("docker") is None:
            return "docker is not on PATH; install Docker Engine 23 or newer"
        command = ["docker", *extra("docker"), "version", "--format", "{{.Server.Version}}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"`docker version` fails: {done.stderr.strip()}"
        if int(done.stdout.split(".")[0]) < 23 and "zstd" not in done.stderr:
            return f"Docker Engine {done.stdout.strip()} cannot read zstd layers; 23 and newer can"
        return None

    def prepare(self, image: Image) -> str:
        """See ``Engine``: the image's ID, which depends on where Docker keeps its images."""
        # The classic store names an image by its config, the containerd store by its manifest.
        for digest in (image.manifest.config.digest, image.digest):
            if _diff_ids(str(digest)) == _wanted(image):
                return str(digest)
        found = _load(image)
        if _diff_ids(found) != _wanted(image):
            raise CheckedFalse(
                f"what Docker loaded as {found} is not {image.name}: its diffIDs differ",
                hint="The image or Docker's store is damaged: `docker image rm` it and try again.",
            )
        return found

    def run(self, prepared: str, image: Image, job: Job) -> int:  # noqa: ARG002 - of the interface
        """See ``Engine``."""
        return run_container("docker", prepared, job, [])


def _wanted(image: Image) -> list[str]:
    return [str(diff_id) for _, diff_id in image.layers]


def _diff_ids(image_id: str) -> list[str] | None:
    command = ["docker", *extra("docker"), "image", "inspect", "--format"]
    command += ["{{json .RootFS.Layers}}", image_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    return [str(each) for each in json.loads(done.stdout) or []]


def _load(image: Image) -> str:
    command = ["docker", *extra("docker"), "load"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        broken = None
        try:
            _write_archive(image, process.stdin)
        except BrokenPipeError as error:
            broken = error
        output, errors = process.communicate() if broken is None else (b"", process.stderr.read())  # type: ignore[union-attr]
    found = _LOADED.search(output.decode())
    if process.returncode != 0 or found is None:
        raise CouldNotCheck(
            f"docker could not load {image.name}",
            hint=f"The command was: {shlex.join(command)}",
            detail=errors.decode("utf-8", "replace").strip(),
        )
    return found[1]


def _write_archive(image: Image, out: IO[bytes]) -> None:
    """Stream *image* in the form ``docker load`` reads (image-spec of Docker, v1.2)."""
    config = image.manifest.config.digest
    names = [f"blobs/sha256/{layer.digest.hex}" for layer, _ in image.layers]
    manifest = [{"Config": f"blobs/sha256/{config.hex}", "RepoTags": None, "Layers": names}]
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for digest in dict.fromkeys([config, *(layer.digest for layer, _ in image.layers)]):
            _add(archive, f"blobs/sha256/{digest.hex}", image.blob_path(digest))
        data = json.dumps(manifest).encode()
        info = tarfile.TarInfo("manifest.json")
        info.size = len(data)
        archive.addfile(info, BytesIO(data))


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    try:
        with path.open("rb") as blob:
            info.size = path.stat().st_size
            archive.addfile(info, blob)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CouldNotCheck(f"cannot read the blob {path}: {error.strerror}") from error
