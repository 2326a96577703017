"""Runs a command of the user's when something happened, and gives it to read what did."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from nix_seed.ground.errors import CouldNotCheck

__all__ = ["call_hook"]

_PATIENCE = 60.0  # seconds
_MOST = 2000


def call_hook(command: Sequence[str], text: bytes, environment: Mapping[str, str]) -> None:
    """Run *command*, with *text* to read and *environment* beside our own, and wait for its end.

    ``CouldNotCheck`` where it cannot be started, fails, or has not ended after a minute.
    """
    name = command[0]
    try:
        done = subprocess.run(
            command,
            input=text,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CouldNotCheck(
            f"the hook {name} was killed: it took over {_PATIENCE:.0f} s"
        ) from error
    except OSError as error:
        raise CouldNotCheck(
            f"the hook {name} could not be started: {error.strerror}",
            hint="name a program, with its arguments: --hook 'notify --urgent'",
        ) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-_MOST:].decode("utf-8", "replace")
        raise CouldNotCheck(f"the hook {name} ended with {done.returncode}", detail=said or None)
