"""The real cosign, 2.x of Debian trixie and 3.x of sid, unpacked beside the system."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.apt import packages

SUITES = {"2": "trixie", "3": "sid"}


@dataclass(frozen=True, slots=True)
class Cosign:
    """A cosign that keeps to *home*, knows one password, and asks no server that is not named."""

    program: Path
    home: Path

    def __call__(self, *arguments: str | Path, check: bool = True) -> str:
        """Run it; return what it printed, both streams."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "COSIGN_PASSWORD": "",
            "COSIGN_YES": "true",
            "TUF_ROOT": str(self.home / "tuf"),
        }
        command = [self.program, *arguments]
        done = subprocess.run(
            command, env=environ, cwd=self.home, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return f"{done.returncode}\n{done.stdout}\n{done.stderr}"


def cosign(major: str, home: Path) -> Cosign:
    """Return cosign of that major version, or skip the test."""
    home.mkdir(parents=True, exist_ok=True)
    return Cosign(packages(SUITES[major], "cosign") / "usr/bin/cosign", home)
