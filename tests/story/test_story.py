"""A new user's walk: README alone, from nothing to an offline build, and to a verified release.

HOME, cache and state are fresh, and the flake is one's own, on the demo's package set. What each
step answers is kept as a golden text, at 60, 80 and 120 columns and in a pipe, with hashes, numbers
and places made alike. After a change that is meant::

    pytest tests/story --renew && git diff tests/story/golden
"""

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import warm
from support.distribution import make_project, nix_env
from support.programs import need
from support.runner import git
from support.terminal import in_terminal

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
SOURCE = "https://github.com/owner/repo"
WIDTHS = (60, 80, 120, None)
# What README tells a new user to type, with a layout on disk in place of a registry. The name of
# a step is that of its golden texts. The whole walk is taken at each width, in a home of its own.
WALK = (
    ("build", "nix-seed build . -o ../seed.oci"),
    ("plan", "nix-seed plan ."),
    ("run", "nix-seed run --image oci:../seed.oci -- nix build"),
    ("", "nix-seed key generate ../builder.key"),
    ("", "nix-seed key generate ../release.key"),
    (
        "init",
        f"nix-seed policy init --source {SOURCE} --log ../log --key me=../builder.pub "
        "--promoter me=../release.pub",
    ),
    ("policy", "nix-seed policy show"),
    ("", "git add trust.toml"),
    ("", "git commit -qm Trust"),
    ("publish", "nix-seed publish oci:../release:dev --key ../builder.key"),
    ("quorum", "nix-seed verify oci:../release:dev --quorum-only"),
    ("promote", "nix-seed promote HEAD --to oci:../release --key ../release.key --tag latest"),
    ("verify", "nix-seed verify HEAD --from oci:../release"),
    ("audit", "nix-seed audit --from oci:../release"),
    ("next", "nix-seed policy next --revoke me --at 2026-01-31 -o next.toml"),
)


@dataclass(frozen=True)
class Walked:
    """What each named step answered at *width*, None being a pipe."""

    width: int | None
    said: dict[str, str]
    project: Path


@pytest.fixture(scope="module", params=WIDTHS, ids=lambda width: str(width or "pipe"))
def walked(
    request: pytest.FixtureRequest,
    distribution: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Walked:
    need("bwrap")
    home = tmp_path_factory.mktemp("home")
    project = make_project("hello", home / "hello", distribution)
    text = (project / "flake.nix").read_text()
    (project / "flake.nix").write_text(re.sub(r'"(aarch64-\w+|x86_64-darwin)"', "", text))
    git(project, "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-qam", "One")
    git(project, "remote", "add", "origin", SOURCE)
    env = _environment(home)
    said: dict[str, str] = {}
    for name, command in WALK:
        head = git(project, "rev-parse", "HEAD").strip()
        line = shlex.split(command.replace("HEAD", head))
        answer = _answer(line, project, env, request.param).replace(str(home), "~")
        said |= {name: answer} if name else {}
    return Walked(request.param, said, project)


in_a_pipe = pytest.mark.parametrize("walked", [None], indirect=True, ids=["pipe"])


def _environment(home: Path) -> dict[str, str]:
    env = nix_env() | {
        "PATH": warm.path(home / "bin"),
        "HOME": str(home),
        "TERM": "dumb",
        "GIT_AUTHOR_NAME": "T",
        "GIT_AUTHOR_EMAIL": "t@localhost",
        "GIT_COMMITTER_NAME": "T",
        "GIT_COMMITTER_EMAIL": "t@localhost",
    }
    gone = ("CI", "COLUMNS", "NIX_SEED_CACHE", "NIX_SEED_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    return {name: value for name, value in env.items() if name not in gone}


def _answer(line: list[str], place: Path, env: dict[str, str], width: int | None) -> str:
    """Run a command and return its standard output: on a terminal of *width*, or in a pipe."""
    if width is None:
        done = subprocess.run(line, cwd=place, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(line)}\n{done.stdout}{done.stderr}"
        return done.stdout
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    with subprocess.Popen(
        line, cwd=place, env=env, stdout=theirs, stdin=theirs, stderr=subprocess.DEVNULL
    ) as process:
        os.close(theirs)
        text = b"".join(_read(ours)).decode()
    os.close(ours)
    assert process.returncode == 0, f"{shlex.join(line)}\n{text}"
    return text.replace("\r\n", "\n")


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # Linux's way to say that nobody writes any more
            return
        if not data:
            return
        yield data


def alike(text: str) -> str:
    """Return *text* with what differs from one machine or day to the next made alike."""
    text = re.sub(r"/nix/store/[a-z0-9]{32}-", "/nix/store/<hash>-", text)
    text = re.sub(r"sha256-[A-Za-z0-9+/]{43}=", "sha256-<hash>", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "<hash>", text)
    text = re.sub(r"\b[0-9a-f]{40}\b", "<commit>", text)
    text = re.sub(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{12,}\b", "<short>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?", "<time>", text)
    # Counts and sizes are the package set's, which Debian moves; how columns stand is not.
    text = re.sub(r"(?<![\w-])\d+(\.\d+)?(?= |$|,|;|:)", "N", text, flags=re.MULTILINE)
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def names() -> list[str]:
    return [name for name, _ in WALK if name]


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_each_step_answers_as_it_did(
    walked: Walked, name: str, request: pytest.FixtureRequest
) -> None:
    path = GOLDEN / f"{name}.{walked.width or 'pipe'}.txt"
    text = alike(walked.said[name])
    if name == "plan":  # its rows are Debian's names and versions, folded where they end
        text = re.sub(r"^ .*\n", "", text, flags=re.MULTILINE)
    if request.config.getoption("--renew", default=False):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.is_file(), "there is no golden text: pytest tests/story --renew"
    assert text == path.read_text(), f"another answer at {walked.width or 'no'} columns"


# A hash, path or reference is never broken: who copies it wants all of it.
_WHOLE = re.compile(r"\S{30,}")


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_lines_fit_the_terminal(walked: Walked, name: str) -> None:
    width = walked.width or sys.maxsize  # a pipe has none
    for line in walked.said[name].splitlines():
        assert len(line) <= width or _WHOLE.search(line), f"{width} columns: {line}"


@in_a_pipe
@pytest.mark.slow
def test_the_walk_ends_in_a_verified_release(walked: Walked) -> None:
    first, second = walked.said["verify"].splitlines()[:2]
    assert re.fullmatch(rf"verified for commit [0-9a-f]{{12}} of {SOURCE}", first)
    assert second.startswith("verdict: VERIFIED: 1 builder agrees (me), 1 is wanted")
    assert walked.said["audit"].startswith("verdict: VERIFIED: 1 record, and nothing is")
    assert (walked.project / "result/bin/hello").is_file()


@in_a_pipe
@pytest.mark.slow
def test_no_path_of_this_machine_is_in_the_policy(walked: Walked) -> None:
    assert str(walked.project.parent) not in (walked.project / "trust.toml").read_text()


def _in_project(walked: Walked, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return how a command is run in the project, as its user runs it."""
    env = _environment(walked.project.parent) | {"TERM": "xterm"}
    return ["sh", "-c", f"cd {walked.project} && exec {shlex.join(['nix-seed', *arguments])}"], env


@in_a_pipe
@pytest.mark.slow
def test_plan_names_every_path_of_each_layer_if_asked(walked: Walked) -> None:
    command, env = _in_project(walked, "plan", ".", "--json")
    planned = json.loads(subprocess.run(command, env=env, capture_output=True, check=True).stdout)
    paths = [path.split("-", 1)[1] for layer in planned["layers"] for path in layer["paths"]]
    most = max(len(layer["paths"]) for layer in planned["layers"])
    assert most > 3
    shown = walked.said["plan"]
    assert "and 1 more" in shown or re.search(r"and \d+ more", shown)
    command, env = _in_project(walked, "plan", ".", "--all")
    text = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"and \d+ more", text)
    rows = text.partition("\n\n")[0].splitlines()[1:]
    held = [name for row in rows for name in row.split("  ")[-1].strip().split(", ")]
    assert sorted(held) == sorted(paths)


@in_a_pipe
@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "."),
        ("plan", ".", "--json"),
        ("licences", "."),
        ("roots", "."),
        ("build", ".", "-o", "../gone.oci"),
        ("inspect", "oci:../release:dev"),
        ("verify", "oci:../release:dev", "--quorum-only"),
        ("audit", "--from", "oci:../release"),
        ("sbom", "oci:../release:dev"),
        ("ledger", "show", "--from", "oci:../release"),
    ],
    ids=" ".join,
)
def test_a_reader_that_has_gone_is_141_of_every_command(
    walked: Walked, arguments: tuple[str, ...]
) -> None:
    command, env = _in_project(walked, *arguments)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, env=env, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.returncode == 141, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr


GREEN, RED = "\x1b[32m\x1b[1m", "\x1b[31m\x1b[1m"


@in_a_pipe
@pytest.mark.slow
def test_a_verdict_has_its_colour_on_a_terminal_alone(walked: Walked) -> None:
    release = "oci:../release:dev"
    for arguments, colour, words in (
        (("verify", release, "--quorum-only"), GREEN, "VERIFIED"),
        (("audit", "--from", "oci:../release"), GREEN, "VERIFIED"),
        (("verify", release, "--commit", "ab" * 20, "--quorum-only"), RED, "CHECKED AND FALSE"),
    ):
        command, env = _in_project(walked, *arguments)
        shown = in_terminal(command, 100, env)
        assert f"verdict: {colour}{words}\x1b[0m" in shown.text, shown.plain
        plain = in_terminal(command, 100, env | {"NO_COLOR": "1"})
        assert f"verdict: {words}" in plain.text
        assert "\x1b[3" not in plain.text
        piped = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert f"verdict: {words}" in piped.stdout
        assert "\x1b" not in piped.stdout
