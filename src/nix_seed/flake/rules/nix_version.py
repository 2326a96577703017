"""Which Nix it is: CppNix, Lix and Determinate Nix say so in ways of their own."""

import re
from collections.abc import Mapping
from typing import Any

from nix_seed.core.values import dataclass

# nix (Nix) 2.8.0, nix (Lix, like Nix) 2.91.1, nix (Determinate Nix 3.8.5) 2.30.2
_VERSION = re.compile(r"nix \((?P<name>[^)]*)\)\s+(?P<version>[0-9][\w.+-]*)")


@dataclass(frozen=True, slots=True)
class NixVersion:
    """Which Nix it is: *fork* is ``CppNix``, ``Lix``, ``Determinate Nix`` or its own word."""

    fork: str
    version: str

    @property
    def number(self) -> tuple[int, ...]:
        """The leading numbers: (2, 8) of ``2.8.0pre``."""
        return tuple(int(each) for each in re.findall(r"\d+", self.version)[:2])


def parse_nix_version(text: str) -> NixVersion | None:
    """Read what ``nix --version`` prints; None where it is of no form that is known."""
    found = _VERSION.search(text)
    if found is None:
        return None
    name = found["name"]
    fork = "CppNix" if name == "Nix" else "Lix" if "Lix" in name else name
    if "Determinate" in name:
        fork = "Determinate Nix"
    return NixVersion(fork, found["version"])


# nixpkgs' lib/minver.nix, and lib/minfeatures.nix since 2025.
_ASKED_FOR = re.compile(r"requires Nix (?:version )?>=? ?(\d+\.\d+)|reports at least (\d+\.\d+)")
_LOCK_VERSION = 7


def find_too_old(said: str, problem: str, lock: Mapping[str, Any], here: str = "") -> str | None:
    """Return in words that a seed's Nix is older than a flake wants, or may be.

    *said* is its ``nix --version``, *here* this machine's; *problem* is what it said of the flake,
    *lock* the flake's lock file.
    """
    found = parse_nix_version(said)
    if found is None:
        return None
    ours = f"the seed's Nix is {found.version}"
    if lock.get("version", 0) > _LOCK_VERSION:
        return f"{ours}, and a newer one wrote flake.lock (version {lock['version']})"
    asked = _ASKED_FOR.search(problem)
    if asked and (wanted := asked[1] or asked[2]):
        return f"{ours}, and the flake wants {wanted}"
    relative = [name for name, node in lock.get("nodes", {}).items() if "parent" in node]
    if relative and found.number < (2, 26):
        return f"{ours}, and flake.lock wants 2.26: {relative[0]} lies in the flake's own tree"
    other = parse_nix_version(here)
    if other is not None and found.number < other.number:
        return f"{ours}, this machine's {other.version}: the flake may want that"
    return None


# Until 2.26 or so, only a pure evaluation takes ``Cargo.toml/../.`` for the directory it means.
_BEHIND_A_FILE = re.compile(r"'(/[^']*/\.\.(?:/[^']*)?)': Not a directory")


def find_misread(said: str, problem: str) -> str | None:
    """Return the path in *problem* that a Nix, whose version is *said*, reads only when pure."""
    found, behind = parse_nix_version(said), _BEHIND_A_FILE.search(problem)
    if found is None or behind is None or found.number >= (2, 26):
        return None
    return behind[1]
