"""``nix-seed run`` and ``nix-seed prove`` as a person calls them, in a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import engines
from support.host_image import host_image

FLAKE = """{ outputs = { self }: { packages.x86_64-linux.default = derivation {
  name = "greeting"; system = "x86_64-linux"; builder = "/bin/sh";
  args = [ "-c" "echo hello > $out" ]; }; }; }"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engines.need("bwrap", "bubblewrap")
    return host_image(tmp_path_factory.mktemp("image") / "layout")


def call(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "project"
    source.mkdir(exist_ok=True)
    (source / "flake.nix").write_text(FLAKE)
    env = os.environ | {"NIX_SEED_CACHE": str(tmp_path / "cache"), "MINE": "from outside"}
    command = [sys.executable, "-m", "nix_seed", *arguments]
    return subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)


def test_a_build_comes_back(layout: Path, tmp_path: Path) -> None:
    where = ["--image", f"oci:{layout}", "--engine", "bwrap", "--out", str(tmp_path / "out")]
    done = call(tmp_path, "run", *where, "--", "nix", "build")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "1 store path brought into" in done.stderr
    assert (tmp_path / "project/result").read_text() == "hello\n"


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
    assert "oci:nowhere is no OCI image layout" in done.stderr
    assert "Make one with `nix-seed build -o DIR`" in done.stderr
