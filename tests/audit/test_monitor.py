"""``nix-seed monitor``: as a process that is told to stop, that finds, that calls a hook."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from nix_seed.audit.monitor import Endurance, Round, monitor
from nix_seed.audit.rules.report import AuditReport
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixSeedError
from nix_seed.core.verdict import Severity
from nix_seed.release.rules.answer import AuditFinding, Kind
from support.audits import Ledger, commit, dangle
from support.programs import first_line

ALARM = AuditFinding(Kind.CONFLICT, Severity.ALARM, "x", "two roots")
DOWN = AuditFinding(Kind.LOG, Severity.UNCHECKED, "log", "it is down")


def report(*findings: AuditFinding) -> AuditReport:
    return AuditReport("https://r", (Digest.of(b""),), 1, (), 0, (), (), findings)


def watch(
    reports: Sequence[AuditReport | NixSeedError], *, keep_going: bool = False, patience: int = 3
) -> tuple[int, list[Round], list[str]]:
    """Run the monitor over *reports*, and stop it after the last; return what was told."""
    left = list(reports)
    rounds: list[Round] = []
    alarms: list[str] = []

    def run() -> AuditReport:
        found = left.pop(0)
        if isinstance(found, NixSeedError):
            raise found
        return found

    ended = monitor(
        run,
        lambda: bool(left),
        rounds.append,
        lambda finding: alarms.append(finding.reason),
        Endurance(keep_going, patience),
    )
    return ended.exit_code, rounds, alarms


def test_the_first_alarm_ends_it() -> None:
    code, rounds, alarms = watch([report(), report(ALARM), report()])
    assert (code, len(rounds), alarms) == (1, 2, ["two roots"])


def test_an_alarm_is_told_of_once_while_it_lasts() -> None:
    reports = [report(ALARM), report(ALARM), report(), report(ALARM)]
    code, rounds, alarms = watch(reports, keep_going=True)
    assert (code, alarms) == (0, ["two roots", "two roots"])
    assert [len(each.new) for each in rounds] == [1, 0, 0, 1]


def test_a_lie_is_told_of_after_an_outage_of_the_same_log() -> None:
    forked = AuditFinding(Kind.LOG, Severity.ALARM, "log", "it forked")
    code, _, alarms = watch([report(DOWN), report(forked)])
    assert (code, alarms) == (1, ["it forked"])
    another = AuditFinding(Kind.LOG, Severity.ALARM, "log", "it rolled back")
    _, _, alarms = watch([report(forked), report(forked, another)], keep_going=True)
    assert alarms == ["it forked", "it rolled back"]


def test_who_cannot_look_does_not_watch() -> None:
    down = CouldNotCheck("the registry is down")
    code, rounds, alarms = watch([report(DOWN), down, report(DOWN), report()])
    assert (code, len(rounds), alarms) == (3, 3, [])
    code, rounds, _ = watch([report(DOWN), down, report(), report(DOWN), report()])
    assert (code, [each.blind for each in rounds]) == (0, [1, 2, 0, 1, 0])


def test_what_ends_an_audit_by_being_false_is_an_alarm() -> None:
    false = CheckedFalse("it has other bytes")
    code, rounds, alarms = watch([false, report()])
    assert (code, len(rounds), alarms) == (1, 1, ["it has other bytes"])
    code, rounds, alarms = watch([report(), false, false, report()], keep_going=True)
    assert (code, alarms) == (0, ["it has other bytes"])
    assert [each.blind for each in rounds] == [0, 1, 2, 0]


def test_a_policy_that_is_being_written_ends_no_watch() -> None:
    half = InputError("trust.toml: no policy")
    code, rounds, _ = watch([report(), half, report(), half, half, report()])
    assert (code, [each.blind for each in rounds]) == (0, [0, 1, 0, 1, 2, 0])
    code, rounds, _ = watch([report(), half, half, half, report()])
    assert (code, len(rounds)) == (3, 4)
    with pytest.raises(InputError, match="no policy"):
        watch([half, report()])


def test_once_ends_as_the_audit_that_failed() -> None:
    for error, code in ((CheckedFalse("false"), 1), (CouldNotCheck("down"), 3)):
        assert once(error, keep_going=True) == code


def once(error: NixSeedError, *, keep_going: bool) -> int:
    def run() -> AuditReport:
        raise error

    never = pytest.fail
    ended = monitor(
        run,
        lambda: never("waited"),
        lambda _: None,
        lambda _: None,
        Endurance(keep_going, once=True),
    )
    return ended.exit_code


@contextmanager
def process(ledger: Ledger, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command, watching every second, until the block ends."""
    command = [sys.executable, "-m", "nix_seed", "monitor", "--from", ledger.repository]
    command += ["--policy", str(ledger.write_policy()), "--state", str(ledger.root / "state/m")]
    command += ["--interval", "1s", *arguments]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_to_and_keeps_what_it_audited(
    ledger: Ledger, number: signal.Signals
) -> None:
    with process(ledger) as running:
        assert "watching https://forge.example/owner/project: 3 records" in first_line(running)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (0, "ended: stopped\n", "")
    again = ledger.audit(state="m")
    assert (again.report["before"], again.report["logs"][0]["read"]) == (3, 0)


def test_a_second_root_ends_it_with_1(ledger: Ledger) -> None:
    with process(ledger) as running:
        first_line(running)
        ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
        out, _ = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "  conflict [" in out
    assert f"{commit(2)} was promoted as 2 different things" in out


def test_a_new_release_is_no_news(ledger: Ledger) -> None:
    with process(ledger, "--json") as running:
        assert json.loads(first_line(running))["records"] == 3
        ledger.release()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            said = json.loads(first_line(running))
            # Between signing and tagging, a round may say that the tag is missing.
            assert said["verdict"] != "checked and false"
            if said["records"] == 4:
                break
        assert said["records"] == 4


def test_the_hook_is_given_the_finding_and_it_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\n{{ echo "$NIX_SEED_ALARM"; cat; }} >> {told}\n')
    hook.chmod(0o755)
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    with process(ledger, "--hook", str(hook), "--keep-going", "--json") as running:
        for _ in range(3):
            said = json.loads(first_line(running))
        assert said["new"] == []
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert running.returncode == 0
    lines = told.read_text().splitlines()
    kinds, findings = lines[::2], [json.loads(line) for line in lines[1::2]]
    assert kinds == [each["kind"] for each in findings]
    assert kinds.count("conflict") == 1


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("/nowhere/hook", "the hook /nowhere/hook could not be started: No such file"),
        ("sh -c 'echo oh no >&2; exit 7'", "the hook sh ended with 7"),
    ],
)
def test_a_broken_hook_hides_no_alarm(ledger: Ledger, hook: str, words: str) -> None:
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    ended = ledger.run(
        *["monitor", "--once", "--from", ledger.repository, "--hook", hook],
        *["--policy", str(ledger.write_policy()), "--state", str(ledger.root / "state/m")],
    )
    assert ended.code == 1
    assert words in ended.printed
    assert "  conflict [" in ended.printed


def test_a_tag_that_cannot_be_read_hides_no_alarm(ledger: Ledger) -> None:
    ledger.forge(2, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    dangle(ledger.layout, "v9")
    ended = ledger.run(
        *["monitor", "--once", "--from", ledger.repository, "--hook", "sh -c 'exit 7'"],
        *["--policy", str(ledger.write_policy()), "--state", str(ledger.root / "state/m")],
    )
    assert ended.code == 1
    assert "the hook sh ended with 7" in ended.printed
    assert "  conflict [" in ended.printed


def test_once_says_what_an_audit_says(ledger: Ledger) -> None:
    arguments = ["--policy", str(ledger.write_policy()), "--state", str(ledger.root / "state/m")]
    ended = ledger.run("monitor", "--once", "--from", ledger.repository, *arguments)
    assert (ended.code, "nothing is false" in ended.printed) == (0, True)


def test_an_interval_that_is_none_is_refused(ledger: Ledger) -> None:
    ended = ledger.run("monitor", "--from", ledger.repository, "--interval", "soon")
    assert ended.code == 2
    assert "--interval soon: 30s, 5m or 1h is wanted" in ended.printed


def test_a_hook_that_is_no_command_is_refused(ledger: Ledger) -> None:
    ended = ledger.run("monitor", "--from", ledger.repository, "--hook", "notify 'x")
    assert ended.code == 2, ended.printed
    assert "--hook notify 'x: No closing quotation" in ended.printed
