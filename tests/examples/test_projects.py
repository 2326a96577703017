"""The example projects, as Git flakes on the Debian distribution."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.distribution import build, commit, make_project, nix, upgraded, use_distribution

SYSTEMS = ("x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin")
OUTPUTS = {
    "hello": ["packages.{}.hello", "packages.{}.default"],
    "two-packages": [
        "packages.{}.libgreet",
        "packages.{}.greet",
        "checks.{}.greet",
        "devShells.{}.default",
    ],
}


@pytest.fixture
def project(distribution: Path, tmp_path: Path) -> Path:
    return make_project("two-packages", tmp_path / "project", distribution)


def said(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", OUTPUTS)
def test_project_is_a_clean_git_flake(distribution: Path, tmp_path: Path, name: str) -> None:
    directory = make_project(name, tmp_path / "project", distribution)
    assert said("git", "-C", directory, "status", "--porcelain") == ""
    assert said("git", "-C", directory, "ls-files", "flake.lock") == "flake.lock\n"
    for system in SYSTEMS:
        for output in OUTPUTS[name]:
            attribute = output.format(system)
            assert nix("eval", "--raw", f"{directory}#{attribute}.system") == system


def test_hello_greets(distribution: Path, tmp_path: Path) -> None:
    directory = make_project("hello", tmp_path / "project", distribution)
    assert said(build(f"{directory}#hello") / "bin/hello", "reader") == "Hello, reader!\n"
    edited = directory / "src/greeting.c"
    edited.write_text(edited.read_text().replace("Hello", "Goodbye"))
    makefile = directory / "Makefile"
    makefile.write_text(makefile.read_text().replace("Hello", "Goodbye"))
    commit(directory, "Say goodbye")
    assert said(build(f"{directory}#hello") / "bin/hello", "reader") == "Goodbye, reader!\n"


def test_checks_app_and_shell_work(project: Path) -> None:
    nix("flake", "check", cwd=project)
    assert nix("run", ".", "--", "Hello", "Nix", cwd=project) == "Hello, Nix!"
    shell = nix("develop", "-c", "bash", "-c", "gcc --version; gdb --version", cwd=project)
    assert "GNU gdb" in shell
    assert "Free Software Foundation" in shell


def test_check_fails_if_the_greeting_is_wrong(project: Path) -> None:
    library = project / "libgreet/greet.c"
    library.write_text(library.read_text().replace("%s, %s!", "%s %s"))
    with pytest.raises(AssertionError, match="greet-test"):
        nix("flake", "check", cwd=project)


def test_input_can_be_updated(project: Path) -> None:
    before = nix("eval", "--raw", f"{project}#greet.drvPath")
    use_distribution(project, upgraded("make"))
    assert said("git", "-C", project, "status", "--porcelain") == ""
    assert nix("eval", "--raw", f"{project}#greet.drvPath") != before
