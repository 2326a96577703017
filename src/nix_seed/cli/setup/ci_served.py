"""``nix-seed ci served``: what a job's steps took from the cache that ``ci use`` started."""

from __future__ import annotations

import os
import re
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

from nix_seed.cli.say import answer
from nix_seed.cli.setup.ci_outputs import SERVED_AT
from nix_seed.cli.setup.ci_report import served_summary, served_text
from nix_seed.core import canonical_json
from nix_seed.core.errors import NixSeedError
from nix_seed.outputs.server import SERVED
from nix_seed.setup.ci_host import CiHost

_LOOPBACK: Final = re.compile(r"http://127\.0\.0\.1:([0-9]{1,5})\Z")
_LONGEST: Final = 1 << 20  # bytes of its answer
_PATIENCE: Final = 10  # seconds


def tell_served() -> None:
    """Say on the run's page what later steps took; that nothing was served is an answer as well."""
    told = _ask_served(os.environ.get(SERVED_AT, ""))
    CiHost().add_summary(served_summary(told))
    answer({} if told is None else told, served_text(told))


def _ask_served(url: str) -> dict[str, Any] | None:
    """Return what the cache at *url* tells, None where there is none; it is of this machine."""
    found = _LOOPBACK.match(url)
    if found is None:
        return None
    connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=_PATIENCE)
    try:
        connection.request("GET", SERVED)
        told = canonical_json.loads(connection.getresponse().read(_LONGEST), label=url)
        kinds = {"taken": int, "bytes": int, "millis": int, "reasons": list}
        if isinstance(told, dict) and all(type(told.get(n)) is k for n, k in kinds.items()):
            return told
    except (OSError, OverflowError, HTTPException, NixSeedError):
        pass
    finally:
        connection.close()
    return None
