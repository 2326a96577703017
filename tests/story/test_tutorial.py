"""The first tutorial in a container without a checkout, by each way of installing a package.

Each way has a home of its own; Debian, its packages and Nix's store are made once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.fresh_debian import fresh_debian
from support.guides import NIXPKGS, check_shown, script_of
from support.readme import ROOT

pytestmark = [pytest.mark.interop, pytest.mark.timeout(1800)]
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


def test_the_first_tutorial_without_a_checkout(tmp_path: Path) -> None:
    """What stands in for nixpkgs is the demo's package set, made there of Debian's packages."""
    page = "tutorials/first-seed.md"
    with fresh_debian(tmp_path) as container:
        container.run("apt-get -q update && apt-get -qy install nix-bin bubblewrap")
        (container.root / "etc/nix").mkdir(exist_ok=True)
        (container.root / "etc/nix/nix.conf").write_text(_NIX_CONF)
        shutil.copytree(ROOT / "examples/debian", container.root / "opt/debian")
        container.run("python3 /opt/debian/make distribution /opt/packages")
        container.run("rm -r /opt/debian")
        for way, install in _WAYS.items():
            home = f"/root/{way}"
            (container.root / home[1:]).mkdir()
            own = f'export HOME={home} PATH="{home}/.local/bin:$PATH"\n'
            container.run(f"{own}git config --global user.name You")
            container.run(f"{own}git config --global user.email you@forge.example")
            container.run(own + install)
            script = script_of(page, {NIXPKGS: "path:/opt/packages"})
            check_shown(page, container.run(own + script, home))
            print(way, container.run(f"{own}python3 - <<'END'\n{_VERSION}END"))
