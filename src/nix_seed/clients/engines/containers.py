"""What podman and Docker have in common: a command line, extra arguments, and ``run``."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nix_seed.clients.engines.base import EXCHANGE, Job, check_started, wrapped
from nix_seed.ground.errors import CouldNotCheck

__all__ = ["ask", "extra", "run_container"]

_SOURCE_READ_ONLY = "/.nix-seed/source"


def extra(program: str, *, run: bool = False) -> list[str]:
    """Return the user's own arguments for *program*, from the environment.

    ``NIX_SEED_PODMAN_ARGS`` goes before the subcommand (``--cgroup-manager=cgroupfs``),
    ``NIX_SEED_PODMAN_RUN_ARGS`` after ``run`` (``--ulimit nofile=1024:1024``); so for Docker.
    """
    return shlex.split(
        os.environ.get(f"NIX_SEED_{program.upper()}_{'RUN_' if run else ''}ARGS", "")
    )


def ask(command: Sequence[str], doing: str, cwd: Path | None = None) -> str:
    """Return what *command* prints; ``CouldNotCheck``, with its own words, where it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CouldNotCheck(
            f"{command[0]} could not {doing}",
            hint=f"The command was: {shlex.join(command)}",
            detail=done.stderr.strip(),
        )
    return done.stdout


def run_container(program: str, image_id: str, job: Job, options: Sequence[str]) -> int:
    """Run *job* in a container of *image_id* that is removed afterwards; return its exit code."""
    command = [program, *extra(program), "run", "--rm", "--interactive", "--pull", "never"]
    if sys.stdin.isatty() and sys.stdout.isatty():
        command.append("--tty")
    if not job.network:
        command += ["--network", "none"]
    command += ["--mount", _bind(job.exchange, EXCHANGE)]
    if job.source is not None:
        command += ["--mount", _bind(job.source, _SOURCE_READ_ONLY, "readonly")]
    for key, value in job.env.items():
        command += ["--env", f"{key}={value}"]
    start = wrapped(job, copy_from=None if job.source is None else _SOURCE_READ_ONLY)
    command += [*options, *extra(program, run=True), "--entrypoint", start[0], image_id, *start[1:]]
    code = subprocess.run(command, check=False).returncode
    check_started(job, program, code, command)
    return code if code >= 0 else 128 - code


def _bind(source: Path, target: str, *more: str) -> str:
    # The argument is a line of CSV, hence the quotes around a path with a comma or a quote in it.
    field = f"source={source.resolve()}"
    if set(field) & set(',"\n'):
        field = '"' + field.replace('"', '""') + '"'
    return ",".join(["type=bind", field, f"target={target}", *more])
