"""GitHub's workflows on this machine, by act: real steps, real jobs, and no GitHub.

Jobs run on this machine itself, whatever their ``runs-on`` says, each in a directory of its own;
jobs with a ``container:`` run on the Docker Engine that ``engine`` names. ``actions/checkout`` of
the repository under test is act's own: it copies the commit's directory. Other actions are looked
up in ``repositories``, and nowhere else. What act does not model: ``permissions:``, and the tokens
that come of them. A run gets those of its ``Run`` alone, as ``support.github`` makes them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from support.goprograms import installed

__all__ = ["Job", "Outcome", "Run", "product_repository"]

_ROOT = Path(__file__).resolve().parents[2]
_LABELS = ("ubuntu-24.04", "ubuntu-24.04-arm", "ubuntu-22.04", "ubuntu-latest", "docker")
_SUMMARY = "  ⚙  Summary - "
_SECONDS = 900


@dataclass(frozen=True)
class Run:
    """What happens, to which repository, and with what. *project* is its directory.

    *token* is ``secrets.GITHUB_TOKEN``. *network* is that of container jobs: GitHub's is a bridge,
    and ``none`` shows that a step needs nothing of it. *prefix* starts act within something else,
    such as a namespace of its own.
    """

    project: Path
    work: Path
    event: Mapping[str, Any]
    name: str = "push"
    token: str = ""
    actor: str = "someone"
    repositories: Mapping[str, Path] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    network: str = "none"
    prefix: tuple[str, ...] = ()
    workflow: str = ".github/workflows"

    def __call__(self) -> Outcome:
        """Play it; the outcome tells of every job."""
        shutil.rmtree(self.work, ignore_errors=True)
        home = self.work / "home"
        home.mkdir(parents=True)
        event = self.work / "event.json"
        event.write_text(json.dumps(self.event))
        command = [*self.prefix, installed("act"), self.name, "--json", "--eventpath", str(event)]
        command += ["--directory", str(self.project), "--workflows", self.workflow]
        command += ["--action-offline-mode", "--pull", "--no-cache-server", "--rm"]
        command += ["--action-cache-path", str(self.work / "runner"), "--actor", self.actor]
        command += ["--network", self.network, "--container-daemon-socket", "-"]
        command += [f"--platform={label}=-self-hosted" for label in _LABELS]
        for name, directory in self.repositories.items():
            command += ["--local-repository", f"{name}={directory}"]
        for name, value in self.variables.items():
            command += ["--var", f"{name}={value}"]
        # Not from the environment: steps would find it there, too.
        secrets = self.work / "secrets"
        secrets.write_text(f'GITHUB_TOKEN="{self.token}"\n' if self.token else "")
        command += ["--secret-file", str(secrets)]
        done = subprocess.run(
            command, env=self._environment(home), capture_output=True, text=True, check=False,
            timeout=_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        (self.work / "log").write_text(done.stdout + done.stderr)
        return Outcome(done.returncode, tuple(_lines(done.stdout)), done.stderr)

    def _environment(self, home: Path) -> dict[str, str]:
        """A runner starts with an empty home; only what was downloaded for it is kept."""
        mine = {name: value for name, value in os.environ.items() if not _ours(name)}
        kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        mine |= {"HOME": str(home), "PIP_CACHE_DIR": str(kept / "pip")}
        mine |= {"UV_CACHE_DIR": str(kept / "uv")}
        return mine | dict(self.env)


def _ours(name: str) -> bool:
    """Whether a variable is the tests' own, or another CI's, which no runner of GitHub's has."""
    return name.startswith(("NIX_SEED_", "GITHUB_", "ACTIONS_", "PYTEST_", "XDG_")) or name in (
        "CI",
        "VIRTUAL_ENV",
        "PYTHONPATH",
    )


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


@dataclass(frozen=True, repr=False)
class Job:
    """One job of a run: its result, and what its steps said."""

    name: str
    result: str
    lines: tuple[dict[str, Any], ...]

    @cached_property
    def said(self) -> str:
        """All that its steps printed, and the commands (``::notice::``) among it."""
        return "".join(_text(line) for line in self.lines if _spoken(line))

    @cached_property
    def summary(self) -> str:
        """Its step summaries; act tells of those in an action twice."""
        found = (line["msg"] for line in self.lines if line["msg"].startswith(_SUMMARY))
        return "".join(dict.fromkeys(text.removeprefix(_SUMMARY) for text in found))

    @cached_property
    def steps(self) -> dict[str, str]:
        """The result of each step that ran to its end, by name."""
        ends = (line for line in self.lines if "stepResult" in line and line.get("stage") == "Main")
        return {line["step"]: line["stepResult"] for line in ends}


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a run came to: act's exit code, and its jobs in the order of their beginnings."""

    code: int
    lines: tuple[dict[str, Any], ...]
    errors: str

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Its jobs; each of a matrix is one. Skipped ones, and callers of workflows, are none."""
        grouped: dict[str, list[dict[str, Any]]] = {}
        for line in self.lines:
            if "job" in line and "matrix" in line:
                key = line["jobID"] + _matrix(line["matrix"])
                grouped.setdefault(key, []).append(line)
        found = (Job(name, _result(of), tuple(of)) for name, of in grouped.items())
        return tuple(job for job in found if job.result)

    def job(self, name: str) -> Job:
        """Return the one job of which the name, ``id (matrix values)``, holds *name*."""
        found = [job for job in self.jobs if name in job.name]
        assert len(found) == 1, f"{name} among {[job.name for job in self.jobs]}\n{self}"
        return found[0]

    @property
    def said(self) -> str:
        """What all jobs said."""
        return "".join(job.said for job in self.jobs)

    def check(self, *, green: bool = True) -> Outcome:
        """Fail the test, with the whole log, unless the run is green, or not."""
        if (self.code == 0) != green:
            pytest.fail(str(self), pytrace=False)
        return self

    def __str__(self) -> str:
        """Show the whole log, as an assertion that failed wants it."""
        words = "".join(f"[{line.get('job', '')}] {_text(line)}" for line in self.lines)
        return f"act ended with {self.code}\n{words}{self.errors}"


def _matrix(values: Mapping[str, Any]) -> str:
    return f" ({', '.join(str(value) for value in values.values())})" if values else ""


def _result(lines: list[dict[str, Any]]) -> str:
    return next((line["jobResult"] for line in reversed(lines) if "jobResult" in line), "")


def _spoken(line: Mapping[str, Any]) -> bool:
    return bool(line.get("raw_output")) or "::" in line["msg"]


def _text(line: Mapping[str, Any]) -> str:
    """A line of a terminal's: act gives steps one, so that lines end with a carriage return."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(line["msg"])).replace("\r", "")
    return text if text.endswith("\n") else text + "\n"


def product_repository(directory: Path) -> Path:
    """Copy the product's files, as git knows them, changes included: what its tag would hold."""
    listed = subprocess.run(
        ["git", "-C", str(_ROOT), "ls-files", "-z", "--", ":!tests", ":!bench"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    for name in listed.decode().split("\0"):
        source = _ROOT / name
        if name and source.is_file():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return directory
