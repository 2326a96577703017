"""A new user's walk in a container that holds Debian and nothing else: README, line by line.

And the first tutorial, in a container without a checkout, by each way of installing a package.

From nothing to the demo, to an own flake that is built offline, and to a verified release in a
registry on this machine. What is added: a wheel of this checkout in place of the one on an index,
and an own flake on the demo's package set in place of the user's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import engines
from support.apt import CACHE
from support.guides import NIXPKGS, check_shown, script_of
from support.programs import need
from support.readme import REGISTRY, ROOT, SOURCE, commands
from support.registries import docker_registry

pytestmark = [pytest.mark.interop, pytest.mark.timeout(1800)]
_SUITE = "bookworm"
# What every Debian has that one works on; the rest README's own commands install.
_DEBIAN = "make,git,ca-certificates,python3-venv,pipx"
_MOST_ROWS = 45
_SECONDS = 900


@dataclass(frozen=True)
class Container:
    """A root directory that each command finds as the one before left it."""

    root: Path
    podman: tuple[str, ...]

    def run(self, script: str, place: str = "/root") -> str:
        """Run *script*, which must succeed, and return what it printed."""
        command = [*self.podman, "--workdir", place, "--rootfs", str(self.root)]
        done = subprocess.run(
            [*command, "sh", "-ec", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
            pytest.skip("needs a package index within reach")
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


def _debian() -> Path:
    """Return the tar of a fresh Debian, made once from the mirror that this machine uses."""
    need("mmdebstrap")
    made = CACHE / f"debian-{_SUITE}-{_DEBIAN.replace(',', '-')}.tar"
    if not made.exists():
        sources = [str(path) for path in Path("/etc/apt").glob("sources.list*/*.sources")]
        options = [f"--aptopt={path}" for path in Path("/etc/apt/apt.conf.d").glob("99*")]
        command = ["mmdebstrap", "--variant=apt", f"--include={_DEBIAN}", *options]
        partial = made.with_suffix(".partial.tar")
        made.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*command, _SUITE, str(partial), *sources], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"needs a Debian mirror: {done.stderr.strip().splitlines()[-1:]}")
        partial.rename(made)
    return made


def _as_this_machine() -> list[str]:
    """How this machine reaches package indexes: their certificates, and pip's own settings."""
    places = ["/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"]
    there = [place for place in (*places, "/etc/pip.conf") if Path(place).exists()]
    names = [name for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_CERT_"))]
    volumes = [part for place in there for part in ("--volume", f"{place}:{place}:ro")]
    return [*volumes, *(part for name in names for part in ("--env", name))]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with _container(tmp_path_factory.mktemp("container")) as made:
        checkout = made.root / "root/nix-seed"
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name, follow_symlinks=False)
        yield made


@contextmanager
def _container(directory: Path) -> Iterator[Container]:
    """A fresh Debian in *directory*, with a wheel of this checkout in ``/root/wheels``."""
    need("uv")
    root = directory / "root"
    root.mkdir()
    with engines.podman(directory) as started:
        subprocess.run(["tar", "-C", root, "-xf", _debian()], check=True)
        wheels = root / "root/wheels"
        build = ["uv", "build", "--wheel", "--no-config", "-q", "-o", str(wheels), str(ROOT)]
        subprocess.run(build, check=True)
        given = [started.env[f"NIX_SEED_PODMAN_{kind}"].split() for kind in ("ARGS", "RUN_ARGS")]
        command = ["podman", *given[0], "run", "--rm", "--network", "host", "--privileged"]
        command += [*given[1], *_as_this_machine(), "--env", "HOME=/root", "--tz", "UTC"]
        yield Container(root, tuple(command))
        subprocess.run(["chmod", "-R", "u+w", root], check=False)
        shutil.rmtree(root, ignore_errors=True)


def test_from_nothing_to_a_verified_release(container: Container, tmp_path: Path) -> None:
    [demo] = commands("sh demo")
    shown = container.run(f"git init -q . && git add -A && {demo}", "/root/nix-seed")
    # From what it tells of itself on: a first set-up says what it installs.
    told = shown[shown.index("Nix Seed turns") :]
    assert len(shown.splitlines()) <= _MOST_ROWS, shown
    assert "built inside a seed" in told
    before, after = (line.strip() for line in told.splitlines() if " sha256:" in line)
    assert before == after
    onward = told.partition("Go on, in .demo/project:\n")[2].partition("\nTrust")[0]
    assert "nix flake check" in onward
    container.run(f"cd .demo/project\n{onward}", "/root/nix-seed")

    container.run("pipx install /root/wheels/*.whl")
    container.run(
        "python3 nix-seed/examples/debian/make project hello own/hello "
        "--distribution nix-seed/.demo/debian\n"
        "cd own/hello && sed -i -E 's/\"(aarch64-\\w+|x86_64-darwin)\"//g' flake.nix\n"
        "git config --global user.name Me && git config --global user.email me@localhost\n"
        f"git commit -qam One && git remote add origin {SOURCE}"
    )
    path = 'export PATH="$HOME/.local/bin:$PATH"\n'
    said = {}
    with docker_registry(tmp_path / "registry", password=False) as registry:
        for command in (*commands("sh"), *commands("sh registry")):
            line = command.replace(REGISTRY, registry.host)
            # One engine is enough, and the container's own /nix is the fresh machine's.
            line += " --engine bwrap" if "nix-seed doctor " in line else ""
            said[command] = container.run(path + line, "/root/own/hello")
    assert "proved" not in said["nix-seed build . -o seed.oci"]
    assert container.run("result/bin/hello", "/root/own/hello")
    told_of = {command.split()[1]: text for command, text in said.items() if " " in command}
    assert "verdict: VERIFIED" in told_of["verify"]
    assert "verdict: VERIFIED" in told_of["audit"]


_WAYS = {
    "pipx": "pipx install /root/wheels/*.whl",
    "uv": "pipx install uv && ~/.local/bin/uv tool install -q /root/wheels/*.whl",
}
_NIX_CONF = """\
experimental-features = nix-command flakes
build-users-group =
substituters =
flake-registry =
"""
# Seconds of processor time, of the quickest of ten: for people to read, not to be judged by.
_VERSION = """\
import resource, subprocess
best = 9.0
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["nix-seed", "--version"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
print(f"--version takes {best:.3f} s of processor time")
"""


@pytest.mark.parametrize("way", _WAYS)
def test_the_first_tutorial_without_a_checkout(way: str, tmp_path: Path) -> None:
    """What stands in for nixpkgs is the demo's package set, made there of Debian's packages."""
    page = "tutorials/first-seed.md"
    with _container(tmp_path) as container:
        container.run("apt-get -q update && apt-get -qy install nix-bin bubblewrap")
        (container.root / "etc/nix").mkdir(exist_ok=True)
        (container.root / "etc/nix/nix.conf").write_text(_NIX_CONF)
        shutil.copytree(ROOT / "examples/debian", container.root / "opt/debian")
        container.run("python3 /opt/debian/make distribution /opt/packages")
        container.run("rm -r /opt/debian; git config --global user.name You")
        container.run("git config --global user.email you@forge.example")
        container.run(_WAYS[way])
        path = 'export PATH="$HOME/.local/bin:$PATH"\n'
        printed = container.run(path + script_of(page, {NIXPKGS: "path:/opt/packages"}))
        check_shown(page, printed)
        print(container.run(f"{path}python3 - <<'END'\n{_VERSION}END"))
