"""Run an image with podman, from its own store, or with Docker (23 and newer, for zstd layers).

Both have a command line in common: extra arguments, and ``run``.
"""

import json
import os
import platform
import re
import secrets
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import IO

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, foreign
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import Descriptor, Index, MediaType
from nix_seed.registry.layout import LAYOUT_FILE, Image
from nix_seed.use.engines.base import EXCHANGE, Job, check_started, environment_of, wrapped
from nix_seed.use.engines.loopback import served_inside

_SOURCE_READ_ONLY = "/.nix-seed/source"


def extra(program: str, *, run: bool = False) -> list[str]:
    """Return the user's own arguments for *program*, from the environment.

    ``NIX_SEED_PODMAN_ARGS`` goes before the subcommand (``--cgroup-manager=cgroupfs``),
    ``NIX_SEED_PODMAN_RUN_ARGS`` after ``run`` (``--ulimit nofile=1024:1024``); so for Docker.
    """
    return shlex.split(
        os.environ.get(f"NIX_SEED_{program.upper()}_{'RUN_' if run else ''}ARGS", "")
    )


def ask(command: Sequence[str], doing: str, cwd: Path | None = None) -> str:
    """Return what *command* prints; ``CouldNotCheck``, with its own words, where it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CouldNotCheck(
            f"{command[0]} could not {doing}",
            hint=f"The command was: {shlex.join(command)}",
            detail=done.stderr.strip(),
        )
    return done.stdout


def why_no_start(program: str) -> str | None:
    """Return why *program* starts no container, in its words; None where it started one.

    The image is a program of some hundred bytes that ends at once, and is removed again. On a
    machine we know no such program for, nothing is tried.
    """
    ends = _ending_program(platform.machine())
    if ends is None:
        return None
    info = tarfile.TarInfo("end")
    info.size, info.mode = len(ends), 0o755
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(info, BytesIO(ends))
    command = [program, *extra(program)]
    made = _try([*command, "import", "-"], archive.getvalue())
    if made.returncode != 0:
        return f"it takes no image: {_last_line(made.stderr)}"
    image = made.stdout.decode().split()[-1]
    run = [*command, "run", "--rm", "--network", "none", *extra(program, run=True)]
    started = _try([*run, "--entrypoint", "/end", image])
    _try([*command, "rmi", "--force", image])
    if started.returncode == 0:
        return None
    return f"it starts no container: {_last_line(started.stderr)}"


def _try(command: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        words = f"it did not end within {_PATIENCE} s".encode()
        return subprocess.CompletedProcess(command, 124, b"", words)


def _last_line(words: bytes) -> str:
    lines = [line for line in words.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip().replace("; ", ", ") if lines else "it said nothing"


# ELF's number for a machine, and the instructions of exit(0) there.
_EXIT = {
    "x86_64": (62, bytes.fromhex("31ffb83c0000000f05")),
    "aarch64": (183, bytes.fromhex("000080d2a80b80d2010000d4")),
}
_PATIENCE = 60  # seconds


def _ending_program(machine: str) -> bytes | None:
    """Return a program for Linux that does nothing and needs nothing; None for other machines."""
    if machine not in _EXIT:
        return None
    number, code = _EXIT[machine]
    base, start = 0x400000, 64 + 56
    size = start + len(code)
    # elf.h: Elf64_Ehdr of ET_EXEC with one program header, and an Elf64_Phdr that loads it all.
    head = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + head + load + code


def run_container(
    program: str, image_id: str, image: Image, job: Job, options: Sequence[str]
) -> int:
    """Run *job* in a container of *image*, which *program* calls *image_id*; return its exit code.

    The container is removed afterwards.
    """
    name = f"nix-seed-{secrets.token_hex(8)}"
    command = [program, *extra(program), "run", "--rm", "--interactive", "--pull", "never"]
    command += ["--name", name]
    if sys.stdin.isatty() and sys.stdout.isatty():
        command.append("--tty")
    if not job.network:
        command += ["--network", "none"]
    command += ["--mount", _bind(job.exchange, EXCHANGE)]
    if job.source is not None:
        command += ["--mount", _bind(job.source, _SOURCE_READ_ONLY, "readonly")]
    added = environment_of({}, job)
    if job.cache is not None:
        added["NIX_CONFIG"] = environment_of(image.environment, job)["NIX_CONFIG"]
    for key, value in added.items():
        command += ["--env", f"{key}={value}"]
    source = None if job.source is None else _SOURCE_READ_ONLY
    start = wrapped(job, copy_from=source, listens=job.serve is not None)
    command += [*options, *extra(program, run=True), "--entrypoint", start[0], image_id, *start[1:]]
    with ExitStack() as stack:
        if job.serve is not None:
            ask = [program, *extra(program), "inspect", "--format", "{{.State.Pid}}", name]
            stack.enter_context(served_inside(job.exchange, EXCHANGE, ask, job.serve))
        code = subprocess.run(command, check=False).returncode
    check_started(job, program, code, command)
    return code if code >= 0 else 128 - code


def _bind(source: Path, target: str, *more: str) -> str:
    # The argument is a line of CSV, hence the quotes around a path with a comma or a quote in it.
    field = f"source={source.resolve()}"
    if set(field) & set(',"\n'):
        field = '"' + field.replace('"', '""') + '"'
    return ",".join(["type=bind", field, f"target={target}", *more])


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

    def run(self, prepared: str, image: Image, job: Job) -> int:
        """See ``Engine``."""
        return run_container("docker", prepared, image, job, [])


def _wanted(image: Image) -> list[str]:
    return [str(diff_id) for _, diff_id in image.layers]


def _diff_ids(image_id: str) -> list[str] | None:
    command = ["docker", *extra("docker"), "image", "inspect", "--format"]
    command += ["{{json .RootFS.Layers}}", image_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    with foreign(f"docker's answer about {image_id} cannot be read"):
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

    def run(self, prepared: str, image: Image, job: Job) -> int:
        """See ``Engine``."""
        return run_container("podman", prepared, image, job, ["--security-opt", "label=disable"])


def _write_view(image: Image, directory: Path) -> None:
    """Make *directory* a layout that holds only *image*, its blobs borrowed."""
    directory.mkdir(parents=True)
    size = image.blob_path(image.digest).stat().st_size
    index = Index((Descriptor(MediaType.MANIFEST, image.digest, size),))
    (directory / "index.json").write_bytes(index.dump())
    (directory / "oci-layout").write_bytes(LAYOUT_FILE)
    (directory / "blobs").symlink_to((image.directory / "blobs").resolve())
