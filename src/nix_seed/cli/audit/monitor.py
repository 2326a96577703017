"""``nix-seed monitor``."""

from __future__ import annotations

import json
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from nix_seed.cli.audit import audit as audits
from nix_seed.cli.command import exit_with, option, seed_command
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import json_option, state_of, stores_of
from nix_seed.cli.say import error_lines, manner, say
from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.processes import call_hook

with lazily():
    from nix_seed.audit import audit, monitor
    from nix_seed.audit.rules import report as reports
    from nix_seed.core import declared
    from nix_seed.release.rules import answer as answers


_INTERVAL = re.compile(r"([1-9][0-9]{0,6})(s|m|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600}


@seed_command("monitor")
@audits.audit_options
@option("--interval TIME", "30s, 5m, 1h between audits.", default="5m")
@option("--once", "Audit once, as `nix-seed audit` does, with the hook.")
@option("--hook COMMAND", "Run it at each alarm: the finding is on its standard input, as JSON.")
@option("--keep-going", "Go on after an alarm.")
@option(
    "--patience N",
    "Audits in a row that may be unable to check everything.",
    type=click.IntRange(min=1),
    default=3,
)
@json_option
def command(**options: Any) -> None:
    """Audit as `nix-seed audit` does, every INTERVAL, reading only what is new; say only what is.

    Exit 1: an alarm. 3: for N audits in a row not everything could be checked, so nobody was
    watching. 0: it was stopped, by SIGTERM or SIGINT; what was audited is kept.

    The hook has NIX_SEED_ALARM=<kind of finding> in its environment. It is called once for each
    alarm while that lasts.
    """
    seconds, hook = _seconds(options["interval"]), _hook(options["hook"])
    with _stoppable() as stop:
        ended = monitor.monitor(
            _audit(options),
            lambda: not stop.wait(seconds),
            _tell,
            hook,
            monitor.Endurance(options["keep_going"], options["patience"], options["once"]),
        )
    if not manner().json:
        say(f"ended: {ended.reason}")
    exit_with(ended.exit_code)


def _audit(options: dict[str, Any]) -> Callable[[], reports.AuditReport]:
    state, stores = state_of(options), stores_of(options)
    whole = [options["whole"]]

    def run() -> reports.AuditReport:
        # The policy is read anew: who runs this for months changes it.
        now = datetime.now(UTC)
        question = audits.question_of(options | {"whole": whole[0]}, ask=True)
        report = audit.audit(stores, question, state, now)
        whole[0] = False
        return report

    return run


def _tell(this: monitor.Round) -> None:
    now, report = declared.time_text(datetime.now(UTC)), this.report
    if manner().json:
        records = None if report is None else len(report.records)
        new = [audits.finding_json(each) for each in this.new]
        value = {"time": now, "round": this.number, "verdict": this.fate.value}
        say(value | {"records": records, "new": new})
        return
    if this.number == 1 and report is not None:
        say(f"{now} watching {report.repository}: {report.reason}")
    for incident in reports.incidents_of(this.new, () if report is None else report.records):
        say(f"{now} " + "\n".join(audits.incident_lines(incident)))


def _hook(command: str | None) -> Callable[[answers.AuditFinding], None]:
    try:
        words = shlex.split(command or "")
    except ValueError as error:
        raise click.UsageError(f"--hook {command}: {error}") from error

    def call(finding: answers.AuditFinding) -> None:
        if not words:
            return
        text = json.dumps(audits.finding_json(finding)).encode() + b"\n"
        try:
            call_hook(words, text, {"NIX_SEED_ALARM": finding.kind.value})
        except CouldNotCheck as error:
            # The alarm itself was told of already, and is what the exit code must say.
            say("\n".join(error_lines(error)), err=True)

    return call


def _seconds(text: str) -> int:
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise click.UsageError(f"--interval {text}: 30s, 5m or 1h is wanted")
    return int(found[1]) * _UNITS[found[2]]


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set: a round under way is ended first, and kept.

    The second signal ends it at once; what is kept is written whole or not at all.
    """
    stop = threading.Event()

    def ask(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
