"""What a CI service is told: GitHub's files and commands, GitLab's sections, files for the rest."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.setup.ci_host import CiHost

GITHUB = {"GITHUB_ACTIONS": "true"}
GITLAB = {"GITLAB_CI": "true"}


def host(environ: dict[str, str]) -> tuple[CiHost, io.StringIO]:
    log = io.StringIO()
    return CiHost(environ, log), log


def test_nothing_in_a_group_is_a_command() -> None:
    github, log = host(GITHUB)
    with github.group("Build"):
        print("::error::from a build", file=log)
        github.annotate("error", "Ours", "said inside")
    lines = log.getvalue().splitlines()
    assert lines[0] == "::group::Build"
    token = lines[1].removeprefix("::stop-commands::")
    assert len(token) == 32
    assert lines[2] == "::error::from a build"
    # Ours is kept until commands are taken again.
    assert lines[3:] == [f"::{token}::", "::endgroup::", "::error title=Ours::said inside"]


def test_a_group_ends_when_what_is_in_it_fails() -> None:
    github, log = host(GITHUB)
    with pytest.raises(ValueError, match="no"), github.group("Build"):
        raise ValueError("no")
    assert log.getvalue().splitlines()[-1] == "::endgroup::"


def test_tokens_are_not_to_be_foreseen() -> None:
    github, log = host(GITHUB)
    for _ in range(2):
        with github.group("x"):
            pass
    stops = [line for line in log.getvalue().splitlines() if line.startswith("::stop-commands::")]
    assert len(set(stops)) == 2


def test_gitlab_has_sections() -> None:
    gitlab, log = host(GITLAB)
    with gitlab.group("Build it: all"):
        gitlab.annotate("notice", "T", "words")
    first, words, last = log.getvalue().split("\n")[:3]
    assert first.startswith("\x1b[0Ksection_start:")
    assert "nix_seed_Build_it__all[collapsed=true]\r\x1b[0KBuild it: all" in first
    assert words == "notice: T: words"
    assert last.startswith("\x1b[0Ksection_end:")


def test_what_is_said_is_harmless() -> None:
    github, log = host(GITHUB)
    github.say("::add-mask::x")
    assert log.getvalue() == ": :add-mask::x\n"


def test_outputs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    host(GITHUB | {"GITHUB_OUTPUT": str(out)})[0].set_outputs({"a": "1", "b": "x\ny"})
    first, second, *rest = out.read_text().splitlines()
    assert first == "a=1"
    end = second.removeprefix("b<<")
    assert rest == ["x", "y", end]


def test_outputs_elsewhere_are_a_dotenv(tmp_path: Path) -> None:
    out = tmp_path / "out"
    gitlab, _ = host(GITLAB | {"SEED_OUTPUTS": str(out)})
    gitlab.set_outputs({"nar_hash": "sha256-x="})
    assert out.read_text() == "SEED_NAR_HASH=sha256-x=\n"
    with pytest.raises(InputError, match="has several lines, which a dotenv cannot hold"):
        gitlab.set_outputs({"a": "1\nEVIL=2"})


def test_no_place_for_outputs_is_no_trouble() -> None:
    for environ in (GITHUB, GITLAB, {}):
        found, _ = host(environ)
        found.set_outputs({"a": "1"})
        found.add_summary("x")
        found.set_variables({"A": "1"}, Path("/bin"))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    github, _ = host(GITHUB | {"GITHUB_OUTPUT": str(tmp_path)})
    with pytest.raises(CouldNotCheck, match="writing to"):
        github.set_outputs({"a": "1"})


@pytest.mark.parametrize("value", ["plain", "a b", "it's", "$HOME `id` $(id)", "two\nlines", '"'])
def test_variables_elsewhere_are_a_shell_file(tmp_path: Path, value: str) -> None:
    file = tmp_path / "env"
    host({"SEED_ENV": str(file)})[0].set_variables({"NAME": value}, tmp_path / "it's bin")
    script = f'. "{file}"; printf "%s|%s" "$NAME" "${{PATH%%:*}}"'
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{value}|{tmp_path}/it's bin"


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "\xff"])
def test_an_event_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    event = tmp_path / "event.json"
    event.write_text(text, encoding="latin-1")
    assert host(GITHUB | {"GITHUB_EVENT_PATH": str(event)})[0].event() is None
    assert host(GITHUB | {"GITHUB_EVENT_PATH": str(tmp_path / "absent")})[0].event() is None
    assert host(GITHUB)[0].event() is None


def test_an_event(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"a": 1}')
    assert host(GITHUB | {"GITHUB_EVENT_PATH": str(event)})[0].event() == {"a": 1}
    assert host(GITLAB | {"GITHUB_EVENT_PATH": str(event)})[0].event() is None
