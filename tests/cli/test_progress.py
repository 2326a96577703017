"""What is shown of work that takes a while: on a terminal, in CI, in a pipe."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nix_seed.cli import progress_lines
from nix_seed.core.events import Stage
from nix_seed.flake.rules.nix_log import NixLog
from support.terminal import in_terminal, python

# A step of 2.2 s in which Nix builds and fetches, and nothing in between is told.
WORK = """
import time
import click
from nix_seed.cli.command import progress
from nix_seed.cli.say import manner, say
from nix_seed.core.events import Stage, tell
from nix_seed.core.processes import may_fork
from nix_seed.flake.rules.nix_log import NixSaid, NixWork
with click.Context(click.Command("x")):
    manner().verbose = VERBOSE
    with progress():
        tell(Stage("realise", "building what the image is to hold"))
        running = tuple(f"building p{n}" for n in range(9))
        tell(NixWork((3, 12), (40, 120), (35_100_000, 410_000_000), running))
        tell(NixSaid("a line of the log", "hello"))
        time.sleep(SECONDS)
        assert may_fork(), "progress must not start threads"
        say("said in between", err=True)
        tell(Stage("next", "the next step"))
    say("the answer")
"""


def work(seconds: float = 0.1, verbose: bool = False) -> list[str]:
    return python(WORK.replace("SECONDS", str(seconds)).replace("VERBOSE", str(verbose)))


def test_a_terminal_is_never_silent_for_a_second() -> None:
    shown = in_terminal(work(2.2))
    assert shown.code == 0, shown.text
    assert shown.longest_silence("building what") < 1
    assert "0:02 building what the image is to hold: 3 of 12 built, 40 of 120 paths" in shown.plain


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    shown = in_terminal(work(0.6), columns)
    assert shown.code == 0, shown.text
    assert max(map(len, shown.lines)) < columns
    assert {"  building p0", "  and 7 more"} <= set(shown.lines)


def test_a_terminal_that_becomes_narrower_is_left_clean() -> None:
    """It has broken the first of four lines in two by then: all five are erased."""
    shown = in_terminal(work(1.6), 80, narrowed=(0.6, 40))
    assert shown.code == 0, shown.text
    ups = [int(rows) for rows in re.findall(r"\x1b\[(\d+)A", shown.text)]
    assert ups.count(4) == 1, ups
    assert set(ups) == {3, 4}
    assert max(map(len, shown.lines[-6:])) < 40


AGAIN = """
import time
from nix_seed.cli.command import progress
from nix_seed.core.events import Stage, Waiting, tell
with progress(quiet=True):
    tell(Stage("read", "reading HOST/seed"))
    tell(Waiting("https://HOST/v2/: no connection could be made", 2.0))
    time.sleep(0.6)
"""


def test_a_terminal_says_that_a_server_is_asked_again() -> None:
    shown = in_terminal(python(AGAIN))
    assert "  trying again in 2.0 s: https://HOST/v2/: no connection could be made" in shown.lines
    assert any(line.startswith("  trying again in 1.5 s: ") for line in shown.lines)
    assert subprocess.run(python(AGAIN), capture_output=True, check=True).stderr == b""


def test_on_a_narrow_terminal_all_of_why_is_shown() -> None:
    why = "fetching registry.example/owner/seed:v1: the registry answered 503: BUSY come back later"
    shown = in_terminal(
        python(AGAIN.replace("https://HOST/v2/: no connection could be made", why)), 40
    )
    assert max(map(len, shown.lines)) < 40
    told = shown.lines[shown.lines.index("  trying again in 2.0 s: fetching") :][:8]
    assert " ".join("".join(told).split()).endswith(why), told


def test_nothing_stays_of_it() -> None:
    """After the last drawing everything below is erased, and then the answer stands alone."""
    shown = in_terminal(work())
    said, _, end = shown.text.rpartition("\x1b[J")
    assert end.replace("\r", "") == "the answer\n"
    # What others print starts a line of its own.
    assert "\x1b[Jsaid in between" in said.replace("\r", "")


def test_v_shows_what_nix_says_and_how_long_steps_took() -> None:
    verbose = work(verbose=True)
    for shown in (in_terminal(verbose).plain, run(verbose)):
        assert "hello> a line of the log\n" in shown
        assert "0:00 building what the image is to hold: 3 of 12 built" in shown


def run(command: list[str], **env: str) -> str:
    """Return what goes to standard error where that is a pipe."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | env)
    assert done.stdout == "the answer\n"
    return done.stderr


def test_a_log_holds_a_line_a_step_and_what_it_came_to() -> None:
    assert run(work()) == (
        "nix-seed: building what the image is to hold\n"
        "said in between\n"
        "nix-seed: 0:00 building what the image is to hold: 3 of 12 built, 40 of 120 paths,"
        " 35.1 MB of 410 MB\n"
        "nix-seed: the next step\n"
    )


@pytest.mark.parametrize("env", [{"CI": "true"}, {"TERM": "dumb"}], ids=str)
def test_ci_and_dumb_terminals_get_lines(env: dict[str, str]) -> None:
    shown = in_terminal(work(), env=env)
    assert "\x1b" not in shown.text
    assert shown.plain.startswith("nix-seed: building what the image is to hold\n")


def test_q_leaves_the_answer_alone() -> None:
    command = [sys.executable, "-m", "nix_seed", "doctor", "-q"]
    shown = in_terminal(command)
    assert "checking" not in shown.plain
    assert "0:0" not in shown.plain
    assert " fine" in shown.plain


def test_doctor_is_never_silent_for_a_second() -> None:
    shown = in_terminal([sys.executable, "-m", "nix_seed", "doctor"])
    assert "checking nix" in shown.plain
    assert shown.longest_silence() < 1, shown.plain


@pytest.mark.parametrize(
    ("env", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=str,
)
def test_colours_are_for_terminals_that_want_them(
    env: dict[str, str], coloured: bool, tmp_path: Path
) -> None:
    # A machine with no program has its colours, and is looked at in a moment.
    env |= {"PATH": str(tmp_path)}
    command = [sys.executable, "-m", "nix_seed", "doctor"]
    shown = in_terminal([*command, "-q"], env=env)
    assert "none can be used" in shown.plain
    assert ("\x1b[" in shown.text) is coloured
    piped = subprocess.run(command, env=os.environ | env, capture_output=True, check=False)
    assert b"none can be used" in piped.stdout
    assert b"\x1b" not in piped.stdout


def test_an_output_that_takes_long_to_evaluate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_lines, "_SLOW", 0.05)
    stream = io.StringIO()
    lines = progress_lines.Lines(stream)
    lines(Stage("evaluate", "evaluating ."))
    for name in ("checks.quick", "checks.vm", ""):
        log = NixLog()
        said = f'@nix {{"action":"msg","level":0,"msg":"trace: nix-seed evaluates {name}"}}'
        for event in log.read(said.encode()):
            lines(event)
        assert log.error == ""
        if name == "checks.vm":
            lines.tick()
            time.sleep(0.06)
    lines.end()
    shown = stream.getvalue()
    assert "evaluating . (evaluating checks.vm)" in shown
    left_out = "--exclude NAME leaves an output out"
    assert f"took long to evaluate: checks.vm (0:00); {left_out}\n" in shown


def test_a_tree_that_takes_long_to_copy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_lines, "_SLOW", 0.05)
    stream = io.StringIO()
    lines = progress_lines.Lines(stream)
    lines(Stage("evaluate", "evaluating ."))
    log = NixLog()
    tree = f"/nix/store/{'0' * 32}-source"
    # As Nix 2.26 tells it, of a file first.
    for number, path in enumerate((f"{tree}/a.patch", tree, f"{tree}/b")):
        start = {"action": "start", "id": number, "level": 5, "parent": 0, "type": 0}
        text = f"copying '{path}' to the store"
        for event in log.read(b"@nix " + json.dumps(start | {"text": text}).encode()):
            lines(event)
        if path == tree:
            lines.tick()
            time.sleep(0.06)
        for event in log.read(f'@nix {{"action":"stop","id":{number}}}'.encode()):
            lines(event)
    lines.end()
    shown = stream.getvalue()
    assert f"evaluating . (copying all of {tree})" in shown
    assert f"took long to copy: {tree} (0:00); " in shown
    assert ".patch" not in shown
