"""Whether this user may make user namespaces, which engines and Nix's sandbox take without root."""

from __future__ import annotations

import subprocess

from nix_seed.ground.errors import CouldNotCheck

__all__ = ["why_no_namespaces"]


def why_no_namespaces() -> str | None:
    """Return why none can be made, in ``unshare``'s words; None where it made one.

    Raises ``CouldNotCheck`` where it cannot be started.
    """
    command = ["unshare", "--user", "--map-root-user", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CouldNotCheck(str(error), hint="apt-get install util-linux") from error
    return None if done.returncode == 0 else done.stderr.strip() or "refused"
