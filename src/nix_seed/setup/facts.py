"""What time a server thinks it is.

How Nix is set up on this machine, as it would be for the user's own commands.
"""

import os
import subprocess
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from nix_seed.core.errors import NixFailed
from nix_seed.flake.nix import Nix
from nix_seed.registry.http import Transport
from nix_seed.registry.patience import Patience
from nix_seed.setup.rules.setup_checks import Reading


def read_clock(
    url: str,
    patience: Patience,
    *,
    plain: frozenset[str] = frozenset(),
    ca_file: str | None = None,
) -> Reading | None:
    """Ask *url* for anything; its ``Date`` (RFC 9110, 6.6.1) tells, whatever else it answers.

    None where it does not say. Half of the way there and back is taken for the way back.
    """
    transport = Transport(patience, os.environ, plain=plain, ca_file=ca_file)
    before = datetime.now(UTC)
    answer = transport.send("HEAD", url, {})
    after = datetime.now(UTC)
    date = answer.headers.get("Date")
    answer.close()
    try:
        there = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=UTC)
    return Reading(url.split("/")[2], before + (after - before) / 2, there)


# The older spelling first: newer versions keep it as an alias for some time.
_SHOW = (["show-config"], ["config", "show"])
# Its builder is a part of Nix, so that no sandbox can hide it; the output is an empty directory.
_BUILD = """derivation {{
  name = "nix-seed-doctor";
  system = builtins.currentSystem;
  builder = "builtin:buildenv";
  derivations = "";
  manifest = "/dev/null";
  nonce = "{}";
}}"""


def read_settings(nix: Nix) -> dict[str, str]:
    """Return Nix's settings; where commands are still experimental, that they are off shows."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "NIX_PAGER": "cat"}
    program = str(nix.bin_dir / "nix") if nix.bin_dir else "nix"
    for words in _SHOW:
        # Not by Nix.run, which turns on what it needs.
        plain = subprocess.run(
            [program, *words], capture_output=True, text=True, env=environment, check=False
        )
        if plain.returncode == 0:
            return _parse(plain.stdout)
    return _forced(nix) | {"experimental-features": ""}


def _forced(nix: Nix) -> dict[str, str]:
    doing = "reading Nix's settings"
    try:
        return _parse(nix.run("nix", _SHOW[0], doing))
    except NixFailed:
        return _parse(nix.run("nix", _SHOW[1], doing))


def _parse(text: str) -> dict[str, str]:
    pairs = (line.partition(" =") for line in text.splitlines())
    return {name: value.strip() for name, equals, value in pairs if equals}


def try_build(nix: Nix) -> Path:
    """Build something new and empty, and delete it; ``NixFailed`` where builds do not work."""
    doing = "building an empty directory"
    expression = _BUILD.format(uuid.uuid4())
    arguments = ["--no-out-link", "--quiet", "--expr", expression]
    path = nix.run("nix-build", arguments, doing).strip()
    # Left for the garbage collector where somebody uses it, which nobody does.
    subprocess.run(["nix-store", "--delete", "--quiet", path], capture_output=True, check=False)
    return Path(path)
