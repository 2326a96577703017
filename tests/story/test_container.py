"""A new user's walk in a container that holds Debian and nothing else: README, line by line.

From nothing to the demo, to an own flake that is built offline, and to a verified release in a
registry on this machine. What is added: a wheel of this checkout in place of the one on an index,
and an own flake on the demo's package set in place of the user's.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fresh_debian import Container, fresh_debian
from support.readme import REGISTRY, ROOT, SOURCE, commands
from support.registries import docker_registry

pytestmark = [pytest.mark.interop, pytest.mark.timeout(1800)]
_MOST_ROWS = 45


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with fresh_debian(tmp_path_factory.mktemp("container")) as made:
        checkout = made.root / "root/nix-seed"
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name, follow_symlinks=False)
        yield made


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
