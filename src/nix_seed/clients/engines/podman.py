"""Run an image with podman, from its own store."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nix_seed.clients.engines.base import Job
from nix_seed.clients.engines.containers import ask, extra, run_container
from nix_seed.clients.image_layout import Image
from nix_seed.clients.layout import LAYOUT_FILE
from nix_seed.formats.oci import media_types
from nix_seed.formats.oci.descriptor import Descriptor, Index

__all__ = ["Podman"]


@dataclass(frozen=True, slots=True)
class Podman:
    """podman 4 and newer, as root or rootless."""

    name: str = "podman"

    def unavailable(self) -> str | None:
        """See ``Engine``."""
        if shutil.which("podman") is None:
            return "podman is not on PATH; install it: apt-get install podman"
        command = ["podman", *extra("podman"), "info", "--format", "{{.Store.GraphRoot}}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"`podman info` fails: {done.stderr.strip()}"
        return None

    def prepare(self, image: Image) -> str:
        """See ``Engine``: the image's ID, which for podman is its config's digest."""
        command = ["podman", *extra("podman")]
        wanted = image.manifest.config.digest.hex
        known = subprocess.run([*command, "image", "exists", wanted], check=False)
        if known.returncode != 0:
            doing = f"load {image.name}"
            with tempfile.TemporaryDirectory() as directory:
                view = Path(directory) / "nix-seed" / image.digest.hex
                _write_view(image, view)
                # Podman names the image by this path, so it must read like an image's name: hence
                # a relative one. The user's own directories may have capitals, dots and blanks.
                relative = str(view.relative_to(directory))
                ask([*command, "pull", "--quiet", f"oci:{relative}"], doing, cwd=Path(directory))
        return wanted

    def run(self, prepared: str, image: Image, job: Job) -> int:  # noqa: ARG002 - of the interface
        """See ``Engine``."""
        return run_container("podman", prepared, job, ["--security-opt", "label=disable"])


def _write_view(image: Image, directory: Path) -> None:
    """Make *directory* a layout that holds only *image*, its blobs borrowed."""
    directory.mkdir(parents=True)
    size = image.blob_path(image.digest).stat().st_size
    index = Index((Descriptor(media_types.MANIFEST, image.digest, size),))
    (directory / "index.json").write_bytes(index.dump())
    (directory / "oci-layout").write_bytes(LAYOUT_FILE)
    (directory / "blobs").symlink_to((image.directory / "blobs").resolve())
