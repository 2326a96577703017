"""Runs this program again as root: for the few steps that take it, on a machine that lets us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nix_seed.ground.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed, NixSeedError

__all__ = ["run_as_root"]

_KEPT = ("PATH", "HOME", "NIX_CONFIG", "NIX_SEED_CACHE", "NIX_SSL_CERT_FILE", "NIX_SEED_DEBUG")
_ERRORS: dict[int, type[NixSeedError]] = {
    error.exit_code: error for error in (CheckedFalse, InputError, CouldNotCheck, NixFailed)
}
_CODE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.argv[0] = "nix-seed"
from nix_seed.cli.main import main
main()"""


def run_as_root(arguments: Sequence[str], stdin: str = "") -> Any:
    """Run ``nix-seed`` with *arguments* by sudo; return what it printed, read as JSON.

    Its log goes to standard error. A failure is raised as it was raised there, in short.
    """
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and shutil.which("sudo") is None:
        raise CouldNotCheck(
            "writing to /nix takes root, and there is no sudo",
            hint="run as root, or make /nix yours beforehand: mkdir /nix && chown $USER /nix",
        )
    kept = [f"{name}={os.environ[name]}" for name in _KEPT if name in os.environ]
    source = str(Path(__file__).resolve().parents[2])
    command = [*sudo, "env", *kept, sys.executable, "-c", _CODE, source, *arguments]
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, text=True, check=False, errors="replace"
    )
    if done.returncode != 0:
        raise _ERRORS.get(done.returncode, CouldNotCheck)(
            f"nix-seed {arguments[0]} failed as root, with exit code {done.returncode}",
            hint="what it said is in the log above",
        )
    try:
        return json.loads(done.stdout or "null")
    except ValueError as error:
        raise CouldNotCheck(f"nix-seed {arguments[0]} printed no JSON as root") from error
