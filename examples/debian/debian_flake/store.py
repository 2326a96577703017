"""Put files into a Nix store, and know the path they get there beforehand."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from debian_flake.errors import Failure

_ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
SETTINGS = """\
experimental-features = nix-command flakes
build-users-group =
substituters =
flake-registry =
sandbox = true
"""


@dataclass(frozen=True, slots=True)
class Store:
    """The machine's Nix store, or the one under another root."""

    root: Path | None = None

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """Run a Nix program on this store and return what it printed."""
        if shutil.which(program) is None:
            raise Failure(f"{program} not found", "install Nix: apt-get install nix-bin")
        store = ["--store", str(self.root.resolve())] if self.root else []
        settings = SETTINGS + os.environ.get("NIX_CONFIG", "")
        done = subprocess.run(
            [program, *arguments, *store],
            cwd=cwd,
            env={**os.environ, "NIX_CONFIG": settings},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failure(f"{program} {arguments[0]} failed:\n{done.stderr.strip()}")
        return done.stdout

    def missing(self, paths: Sequence[str]) -> set[str]:
        """Return those of the store paths that the store does not hold."""
        if not paths:
            return set()
        printed = self.run("nix-store", "--check-validity", "--print-invalid", *paths)
        return set(printed.split())

    def add_fixed(self, files: Sequence[Path]) -> list[str]:
        """Add files as fixed outputs, named as they are, and return their store paths."""
        return self.run("nix-store", "--add-fixed", "sha256", *map(str, files)).split()

    def add_tree(self, directory: Path) -> str:
        """Add a directory as a fixed output and return its store path."""
        added = self.run("nix-store", "--add-fixed", "--recursive", "sha256", str(directory))
        return added.strip()


def fixed_path(sha256_hex: str, name: str) -> str:
    """Return the store path of a flat file with this SHA-256 (Nix manual, "Store paths")."""
    inner = hashlib.sha256(f"fixed:out:sha256:{sha256_hex}:".encode()).hexdigest()
    outer = hashlib.sha256(f"output:out:sha256:{inner}:/nix/store:{name}".encode()).digest()
    folded = bytearray(20)
    for position, byte in enumerate(outer):
        folded[position % 20] ^= byte
    return f"/nix/store/{base32(bytes(folded))}-{name}"


def base32(data: bytes) -> str:
    """Write bytes in Nix's base 32: least significant digit last, no padding."""
    number = int.from_bytes(data, "little")
    digits = (len(data) * 8 + 4) // 5
    return "".join(_ALPHABET[number >> (5 * n) & 31] for n in reversed(range(digits)))
