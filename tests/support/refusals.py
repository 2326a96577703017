"""Commands that are refused or cut short: exit code, one line, and nothing half."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from support import quick
from support.distribution import distribution
from support.seeds import COMMAND, Ran, build, environment, write_project

TOOL = """
      packages.${system} = {
        default = pkgs.runCommand "tool" { src = ./tool; }
          "mkdir -p $out/bin; cp $src $out/bin/tool";
        other = pkgs.runCommand "other" { } "echo > $out";
      };
"""


def project() -> Path:
    """A project whose run image is small: its own file, a shell, a C library.

    It is made once a run, and not to be changed.
    """

    def make(path: Path) -> None:
        write_project(path, distribution(), TOOL, {"tool": "#!/bin/sh\n"})

    return quick.once("tool", make)


def image() -> dict[str, Any]:
    """Return what ``build --json`` says of its image, made where nothing goes wrong."""

    def make(path: Path) -> None:
        made = build(source, "--kind", "run", cache=path.with_name("tool-cache"))
        path.write_text(json.dumps(made))

    source = project()
    value: dict[str, Any] = json.loads(quick.once("tool-image", make).read_text())
    return value


def refused(ran: Ran, code: int, *messages: str, output: Path | None = None) -> None:
    """Assert what a failed run says, with which code, and that it made nothing at *output*."""
    assert ran.code == code, ran.err
    for message in messages:
        assert message in ran.err
    assert "Traceback" not in ran.err
    assert "unexpected" not in re.sub(
        "syntax error, unexpected|unexpected flake input", "", ran.err
    )
    assert ran.out == ""
    assert output is None or not output.exists()


def check_layout(directory: Path) -> None:
    """Assert that every blob of a layout has its digest, and that no temporary file is left."""
    for blob in (directory / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert not list(directory.rglob("*.tmp"))


def start(project: Path, *arguments: str, cache: Path) -> subprocess.Popen[str]:
    """Start a build in the background, able to be interrupted even where the tests are not."""
    return subprocess.Popen(
        [*COMMAND, "build", str(project), *arguments],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_a_layer(process: subprocess.Popen[str], cache: Path) -> None:
    """Wait until the first layer is finished, and the run is not."""
    deadline = time.monotonic() + 60
    while not list(cache.glob("layers/*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def flip(file: Path) -> None:
    """Change one bit in the middle, and neither size nor time."""
    status = file.stat()
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    file.chmod(status.st_mode)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)
