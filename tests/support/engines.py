"""The real engines, started for tests and stopped after them; each skips by name where it cannot.

Docker Engine is Debian trixie's, unpacked beside the system, with the system's own runc: its
daemon, sockets and images live in a directory of the test's own, and it touches no network rules.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.apt import CACHE, packages, with_dependencies

_LIMITS = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"


def need_root() -> None:
    """Skip unless the test runs as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make containers")


def need(program: str, package: str | None = None) -> str:
    """Return the path of *program*, or skip and say which package has it."""
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {package or program}")
    return found


@dataclass(frozen=True)
class Started:
    """A started engine: *program* to call, and the environment in which it finds its own things."""

    program: str
    env: dict[str, str]


@contextmanager
def started(name: str, directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Give an engine, started in *directory* where it needs a daemon, and its environment."""
    if name == "bwrap":
        need("bwrap", "bubblewrap")
        yield name, {}
        return
    with {"podman": podman, "docker": docker}[name](directory) as running:
        yield name, dict(running.env)


@contextmanager
def podman(directory: Path) -> Iterator[Started]:
    """podman with a store in *directory*, and whatever arguments make it start containers here."""
    need_root()
    need("podman")
    # podman takes no runroot of more than 50 characters, which a worker's directory may have.
    runroot = tempfile.mkdtemp(prefix="podman-")
    # Resetting one podman takes its tmpdir away, which all would share.
    store = f"--root {directory}/podman --runroot {runroot} --tmpdir {runroot}/libpod"
    adapted = f"{store} --cgroup-manager=cgroupfs --runtime {need('runc')}"
    # Plain first. Old podman as root under hybrid cgroups wants another runtime and low limits.
    for arguments, more in ((store, ""), (adapted, _LIMITS)):
        env = {"NIX_SEED_PODMAN_ARGS": arguments, "NIX_SEED_PODMAN_RUN_ARGS": more}
        if _podman_starts(arguments, more, directory):
            try:
                yield Started("podman", env)
            finally:
                reset = ["podman", *arguments.split(), "system", "reset", "--force"]
                subprocess.run(reset, capture_output=True, check=False)
                shutil.rmtree(runroot, ignore_errors=True)
            return
    pytest.skip("needs a podman that can start containers here")


def _podman_starts(arguments: str, more: str, directory: Path) -> bool:
    root = directory / "podman-probe"
    root.mkdir(exist_ok=True)
    shutil.copy2(need("busybox", "busybox-static"), root / "busybox")
    command = ["podman", *arguments.split(), "run", "--rm", "--network", "none", *more.split()]
    command += ["--rootfs", str(root), "/busybox", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def docker(directory: Path, *, plain_http: Sequence[str] = ()) -> Iterator[Started]:
    """Docker Engine 26 with everything of its own in *directory*.

    *plain_http* are registries, beyond those on loopback, that it may ask without TLS.
    """
    need_root()
    root = packages("trixie", "docker.io", "docker-cli", "containerd")
    need("runc")
    path = f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}:/usr/sbin:/sbin"
    socket = f"unix://{directory}/docker.sock"
    env = {"PATH": path, "DOCKER_HOST": socket, "NIX_SEED_DOCKER_ARGS": ""}
    command = [f"{root}/usr/sbin/dockerd", "--data-root", f"{directory}/docker"]
    # Sockets lie in it, whose addresses have 107 bytes at most.
    state = tempfile.mkdtemp(prefix="docker-")
    command += ["--exec-root", state, "-H", socket]
    command += ["--pidfile", f"{directory}/docker.pid", "--iptables=false", "--ip6tables=false"]
    command += ["--bridge=none", *(f"--insecure-registry={host}" for host in plain_http)]
    ask = [f"{root}/usr/bin/docker", "-H", socket, "version"]
    try:
        with _daemon(command, env, directory / "dockerd.log", ask):
            yield Started("docker", env)
    finally:
        shutil.rmtree(state, ignore_errors=True)


@contextmanager
def containerd(directory: Path) -> Iterator[Started]:
    """containerd with a state of its own, and ``ctr`` pointed at it."""
    need_root()
    program, ctr = need("containerd"), need("ctr", "containerd")
    config = directory / "containerd.toml"
    config.write_text(
        f'version = 2\nroot = "{directory}/containerd"\nstate = "{directory}/containerd-state"\n'
        f'[grpc]\n  address = "{directory}/containerd.sock"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
    )
    env = {"CONTAINERD_ADDRESS": f"{directory}/containerd.sock"}
    command = [program, "--config", str(config)]
    with _daemon(command, env, directory / "containerd.log", [ctr, "version"]):
        yield Started(ctr, env)


@contextmanager
def _daemon(
    command: Sequence[str], env: dict[str, str], log: Path, ask: Sequence[str]
) -> Iterator[None]:
    """Run *command* until the block ends; begin the block when *ask* succeeds."""
    environment = os.environ | env
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(ask, env=environment, capture_output=True, check=False).returncode:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.skip(f"needs {command[0]} to start here: {_last_words(log)}")
                time.sleep(0.1)
            yield
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    return lines[-1] if lines else "it said nothing"


def trixie_nix() -> Path:
    """Return the programs of Debian trixie's newer Nix."""
    return debian_nix("trixie")


def debian_nix(suite: str) -> Path:
    """Return a directory of programs, ``nix`` and its aliases, of the Nix in a *suite* of Debian's.

    It runs with its own libraries and loader, beside whatever the system has.
    """
    names = [name for name in with_dependencies(suite, "nix-bin") if name.startswith("lib")]
    root = packages(suite, "nix-bin", *_without_perl(names))
    bin_dir = CACHE / f"{suite}-nix-bin"
    if not (bin_dir / "nix").exists():
        bin_dir.mkdir(exist_ok=True)
        loader = next(root.glob("usr/lib/*-linux-gnu*/ld-linux*"))
        libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu*"))
        for program in (root / "usr/bin").glob("nix*"):
            start = f'exec {loader} --argv0 "$0" --library-path {libraries} {root}/usr/bin/nix "$@"'
            _write_program(
                bin_dir / program.name, f"#!/bin/sh\nexport NIX_BIN_DIR={bin_dir}\n{start}\n"
            )
    return bin_dir


def _without_perl(names: Sequence[str]) -> list[str]:
    return [name for name in names if "perl" not in name and not name.startswith("libpam-")]


def _write_program(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.chmod(0o755)
    partial.rename(path)


def node_package(cpu: str = "x64") -> Path:
    """Return the root of an npm package that carries a Node built by its own distributors.

    This is what GitHub mounts at ``/__e``: foreign to the image, linked against an ordinary glibc.
    """
    name = f"node-linux-{cpu}"
    directory = CACHE / name
    if not (directory / "package/bin/node").exists():
        need("npm")
        partial = CACHE / f".partial-node-{os.getpid()}"
        partial.mkdir(parents=True)
        command = ["npm", "pack", "--silent", f"{name}@20"]
        done = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
        archives = list(partial.glob("*.tgz"))
        if done.returncode != 0 or not archives:
            shutil.rmtree(partial)
            pytest.skip(f"needs npm to reach its registry, for the package {name}")
        subprocess.run(["tar", "-xzf", archives[0], "-C", partial], check=True)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    return directory / "package"


def run_node(root: Path, cpu: str = "x64") -> subprocess.CompletedProcess[str]:
    """Start that Node in the file system *root* as GitHub's runner does; it prints its version.

    It is mounted read-only at ``/__e/node20``, and there is no ``LD_LIBRARY_PATH``. *root* is
    mounted read-only too.
    """
    need("bwrap", "bubblewrap")
    node = node_package(cpu)
    command = ["bwrap", "--unshare-all", "--clearenv", "--tmpfs", "/"]
    for entry in sorted(root.iterdir()):
        if entry.is_symlink():
            command += ["--symlink", os.readlink(entry), f"/{entry.name}"]
        elif entry.name not in ("dev", "proc"):
            command += ["--ro-bind", str(entry), f"/{entry.name}"]
    command += ["--dev", "/dev", "--proc", "/proc", "--ro-bind", str(node), "/__e/node20"]
    program = "const os = require('os'); console.log(process.version, os.EOL.length)"
    return subprocess.run(
        [*command, "/__e/node20/bin/node", "-e", program],
        capture_output=True,
        text=True,
        check=False,
    )
