"""mkSeed's ``anyUser``: real podman runs the seed as whoever it likes, and on a read-only root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import Image, open_image
from nix_seed.use.engines import choose_engine
from support import built, engines
from support.distribution import distribution
from support.seeds import build, edit, product_flake, write_project

OUTPUTS = """
      packages.${system} = {
        default = pkgs.runCommand "words" { src = ./words; } "cat $src > $out";
        seed = seeds.mkSeed { inherit self system; anyUser = true; };
      };
"""
USERS = ("12345:0", "12345:12345", "0:0")
READ_ONLY = ("--read-only", "--tmpfs", "/tmp")


@dataclass(frozen=True)
class Podman:
    """A podman that holds a seed, and a project that changed after the seed was made."""

    image_id: str
    project: Path

    def run(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a script in a container without network that has the project at ``/src``."""
        split = [os.environ[f"NIX_SEED_PODMAN_{kind}"].split() for kind in ("ARGS", "RUN_ARGS")]
        command = ["podman", *split[0], "run", "--rm", "--network", "none", *split[1]]
        command += ["--volume", f"{self.project}:/src:ro", "--workdir", "/src", *options]
        return subprocess.run(
            [*command, self.image_id, "/bin/sh", "-e", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("any-user")
    product = product_flake(where / "product")
    return write_project(
        where / "project", distribution(), OUTPUTS, {"words": "first\n"}, product=product
    )


@pytest.fixture(scope="module")
def image(project: Path) -> Image:
    layout = project.parent / "image"
    build(project, "-o", layout, cache=built.workshop() / "cache")
    return open_image(LayoutReference(str(layout)))


@pytest.fixture(scope="module")
def podman(image: Image, project: Path, podman_here: engines.Started) -> Iterator[Podman]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in podman_here.env.items():
            patch.setenv(name, value)
        image_id = choose_engine("podman", project.parent / "cache").prepare(image)
        edit(project, "words", "first", "second")
        yield Podman(image_id, project)


BUILD = "nix build --out-link /tmp/result && cat /tmp/result && id -u && id -g"


@pytest.mark.parametrize("user", USERS)
def test_a_changed_source_is_built_by_any_user(podman: Podman, user: str) -> None:
    done = podman.run(f"nix --version && {BUILD}", "--user", user)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["second", *user.split(":")]


@pytest.mark.parametrize("user", USERS)
def test_a_read_only_root_is_enough_to_ask_nix(podman: Podman, user: str) -> None:
    asked = "nix --version; nix eval --store dummy:// --expr '1 + 1'; git -C /src log --format=%s"
    done = podman.run(asked, *READ_ONLY, "--user", user)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["2", "Change words", "Start"]


def test_on_a_read_only_root_a_volume_takes_what_is_built(podman: Podman) -> None:
    done = podman.run(BUILD, *READ_ONLY, "--volume", "/nix", "--user", "12345:0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["second", "12345", "0"]


def test_an_init_container_fills_an_empty_directory(podman: Podman, tmp_path: Path) -> None:
    """Kubernetes' way, which copies nothing into volumes by itself."""
    empty = tmp_path / "emptyDir"
    empty.mkdir()
    empty.chmod(0o777)
    user = ("--user", "12345:12345", *READ_ONLY)
    filled = podman.run("cp -a /nix/store /nix/var /copy/", *user, "--volume", f"{empty}:/copy")
    assert filled.returncode == 0, filled.stderr
    done = podman.run(BUILD, *user, "--volume", f"{empty}:/nix")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["second", "12345", "12345"]


def test_what_the_seed_brought_cannot_be_replaced(podman: Podman) -> None:
    """Everyone may add to the store; nobody but its owner takes from it."""
    done = podman.run(
        'for path in /nix/store/*; do mv "$path" "$path.moved" 2>/dev/null && echo "$path"; done; '
        "echo over; test ! -w /etc/passwd && test ! -w /etc/nix/nix.conf",
        "--user",
        "12345:0",
    )
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


def test_the_option_changes_modes_and_home_alone(image: Image, project: Path) -> None:
    plain = project.parent / "plain"
    edit(project, "flake.nix", "anyUser = true", "anyUser = false")
    build(project, "-o", plain, cache=built.workshop() / "cache")
    edit(project, "flake.nix", "anyUser = false", "anyUser = true")
    other = open_image(LayoutReference(str(plain)))
    assert [layer for layer, _ in image.layers[:-1]] == [layer for layer, _ in other.layers[:-1]]
    assert image.environment == other.environment | {"HOME": "/tmp/home"}
    assert image.digest != other.digest
