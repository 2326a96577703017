"""``nix-seed run`` and ``nix-seed prove`` as a person calls them, in a real engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import open_image
from support import built, engines, registries, warm
from support.distribution import nix_env

FLAKE = """{ outputs = { self }: { packages.x86_64-linux.default = derivation {
  name = "greeting"; system = "x86_64-linux"; builder = "/bin/sh";
  args = [ "-c" "echo hello > $out" ]; }; }; }"""


@pytest.fixture(scope="module")
def layout() -> Path:
    engines.need("bwrap", "bubblewrap")
    return built.layout("seed")


def call(
    tmp_path: Path, *arguments: str, env: Mapping[str, str] | None = None, text: str = "hello"
) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "project"
    source.mkdir(exist_ok=True)
    (source / "flake.nix").write_text(FLAKE.replace("hello", text))
    # One cache for all of them: the seed is unpacked once.
    own = {"NIX_SEED_CACHE": str(built.workshop() / "cache"), "MINE": "from outside"}
    return warm.run(arguments, nix_env() | own | dict(env or {}), source)


def test_a_build_comes_back(layout: Path, tmp_path: Path) -> None:
    where = ["--image", f"oci:{layout}", "--engine", "bwrap", "--out", str(tmp_path / "out")]
    done = call(tmp_path, "run", *where, "--", "nix", "build")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "1 store path brought into" in done.stderr
    assert (tmp_path / "project/result").read_text() == "hello\n"


def test_a_store_that_takes_no_results_has_them_in_a_directory(
    layout: Path, tmp_path: Path
) -> None:
    """As that of a daemon that does not trust this user, which most daemons do not."""
    (tmp_path / "bin").mkdir()
    for program in Path("/usr/bin").iterdir():
        if not program.name.startswith("nix"):
            (tmp_path / "bin" / program.name).symlink_to(program)
    results = built.workshop() / "cache/results"
    for text in ("hello", "once more"):  # the first link must not be in the way of the second
        done = call(
            tmp_path, "run", "--image", f"oci:{layout}", "--", "nix", "build",
            env={"PATH": str(tmp_path / "bin")}, text=text,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "not into the host's store: Nix is not installed here" in done.stderr
        link = tmp_path / "project/result"
        assert Path(os.readlink(link)).is_relative_to(results)
        assert link.read_text() == f"{text}\n"


def test_json_follows_what_the_command_printed(layout: Path, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "host")]
    done = call(tmp_path, "run", "--json", "--image", f"oci:{layout}", *store, "nix", "build")
    value = json.loads(done.stdout)
    assert value["exitCode"] == 0
    assert list(value["links"]) == [str(tmp_path / "project/result")]
    assert [path.rpartition("-")[2] for path in value["paths"]] == ["greeting"]
    assert set(value["seconds"]) == {"unpack", "start", "command", "results"}


def test_the_commands_exit_code_and_words_pass_through(layout: Path, tmp_path: Path) -> None:
    shell = ["--", "sh", "-c", 'echo "$MINE, $OTHER"; exit 7']
    where = ["--image", f"oci:{layout}", "--out", str(tmp_path / "out")]
    done = call(tmp_path, "run", *where, "-e", "MINE", "-e", "OTHER=given", *shell)
    assert done.returncode == 7
    assert done.stdout == "from outside, given\n"
    assert "the command failed with exit code 7" in done.stderr


def test_prove_says_complete(layout: Path, tmp_path: Path) -> None:
    done = call(tmp_path, "prove", "--image", f"oci:{layout}", "--system", "x86_64-linux")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "complete: all 1 output can be built offline\n"


def test_no_image_says_how_to_make_one(tmp_path: Path) -> None:
    done = call(tmp_path, "run", "--image", "oci:nowhere", "nix", "build")
    assert done.returncode == 2
    assert "there is no image layout" in done.stderr
    assert "name a directory that `nix-seed build -o DIR` made" in done.stderr


def test_without_a_seed_of_its_own_a_project_has_its_locks(layout: Path, tmp_path: Path) -> None:
    """As in the clone of a colleague, who has built none."""
    ask = ("run", "--engine", "bwrap", "--out", str(tmp_path / "out"), "--", "nix", "build")
    assert call(tmp_path, *ask).returncode == 2
    locked = call(tmp_path, "lock", f"oci:{layout}")
    assert locked.returncode == 0, locked.stderr
    done = call(tmp_path, *ask)
    assert done.returncode == 0, done.stderr
    assert "taking the one in seed.lock" in done.stderr
    assert (tmp_path / "project/result").read_text() == "hello\n"
    proved = call(tmp_path, "prove")
    assert proved.returncode == 0, proved.stderr


def test_a_seed_in_a_registry_is_pulled_once(layout: Path, tmp_path: Path) -> None:
    with registries.docker_registry(tmp_path / "registry", password=False) as running:
        reference = f"{running.host}/demo/seed:x"
        pushed = call(tmp_path, "push", f"oci:{layout}", reference, "--json")
        assert pushed.returncode == 0, pushed.stderr
        where = ["--engine", "bwrap", "--out", str(tmp_path / "out")]
        done = call(tmp_path, "run", *where, "--image", reference, "--", "nix", "build")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "project/result").read_text() == "hello\n"
    digest = open_image(LayoutReference(str(layout))).digest
    # The registry is gone; what a digest names is here.
    named = f"{running.host}/demo/seed@{digest}"
    again = call(tmp_path, "prove", "--image", named)
    assert again.returncode == 0, again.stderr
