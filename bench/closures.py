"""Closures to plan without a store: synthetic ones like nixpkgs', and Debian's own package graph.

A ``Packages`` graph names packages, bytes and dependencies. ``realise`` turns it into path infos
whose hash parts follow from everything below, as a store's do: a new version of one package gives
new paths to all that reach it.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from nix_seed.core.digests import NarHash, encode_nix32
from nix_seed.formats.nix.store_path import PathInfo, StorePath

Closure = dict[StorePath, PathInfo]


@dataclass(frozen=True, slots=True)
class Package:
    size: int
    needs: tuple[str, ...]
    version: str = "1.0"


Packages = dict[str, Package]


def realise(packages: Mapping[str, Package]) -> dict[str, PathInfo]:
    """Give every package a store path; *packages* are in an order in which needs come first."""
    infos: dict[str, PathInfo] = {}
    for name, package in packages.items():
        references = tuple(sorted(infos[need].path for need in package.needs))
        text = "\0".join([name, package.version, *map(str, references)])
        digest = hashlib.sha256(text.encode()).digest()
        path = StorePath(f"{encode_nix32(digest[:20])}-{name}-{package.version}")
        infos[name] = PathInfo(path, NarHash(digest.hex()), package.size, references)
    return infos


def closure_of(infos: Iterable[PathInfo]) -> Closure:
    return {info.path: info for info in infos}


def roots_of(packages: Mapping[str, Package]) -> list[str]:
    """The packages that no other needs."""
    needed = {need for package in packages.values() for need in package.needs}
    return [name for name in packages if name not in needed]


def updated(packages: Packages, name: str, version: str = "1.1") -> Packages:
    return {**packages, name: replace(packages[name], version=version)}


def synthetic(count: int, seed: int = 1) -> Packages:
    """*count* packages in eight levels: a core everything needs, libraries, ecosystems, leaves.

    Sizes are log-normal around 60 to 700 kB with a tail of hundreds of megabytes. What a
    package needs lies below it, mostly in its own ecosystem (as Python packages need Python and
    each other), and popular things are needed more.
    """
    rng = random.Random(seed)
    families = max(3, round(math.sqrt(count) / 2))
    names = [f"pkg{chr(97 + i % 26)}{i:05d}" for i in range(count)]
    rng.shuffle(names)
    level = [min(7, int(8 * (i / count) ** 0.6)) for i in range(count)]
    family = [rng.randrange(families) for _ in range(count)]
    starts = [next((i for i in range(count) if level[i] >= n), count) for n in range(9)]
    by_family: dict[int, list[int]] = {f: [] for f in range(families)}
    result: Packages = {}
    for i, name in enumerate(names):
        needs: set[int] = set()
        if level[i]:
            needs.add(0)
            for _ in range(1 + min(20, int(rng.expovariate(0.25)))):
                below = starts[level[i]]
                own = by_family[family[i]]
                if own and rng.random() < 0.7:
                    candidate = own[int(len(own) * rng.random() ** 1.7)]
                else:
                    candidate = int(below * rng.random() ** 2.5)
                if candidate < i and level[candidate] < level[i]:
                    needs.add(candidate)
        by_family[family[i]].append(i)
        middle = math.log(60_000) + 0.35 * level[i]
        size = min(900_000_000, int(rng.lognormvariate(middle, 2.3)) + 500)
        result[name] = Package(size, tuple(names[n] for n in sorted(needs)))
    return result


# A C and Python build environment of the size that flakes really have.
DEBIAN_ROOTS = {
    "base": ("libc6", "ca-certificates", "bash"),
    "toolchain": ("nix-bin", "gcc", "g++", "gdb", "make"),
    "packages": ("git", "cmake", "python3-numpy", "libssl-dev", "python3-pytest", "pkg-config"),
    "devShells": ("clang", "nodejs", "golang-go", "postgresql", "python3-scipy", "imagemagick"),
}


# Desktops, offices, typesetting, statistics: more than any flake carries, for its shape at scale.
DEBIAN_LARGE = ("gnome", "kde-full", "libreoffice", "texlive-full", "r-base", "octave", "emacs")


def debian(roots: Iterable[str], available: Mapping[str, Package] | None = None) -> Packages:
    """The closure of *roots* in Debian's package graph, cycles cut.

    Depends and Pre-Depends, the first alternative that exists; bytes are Installed-Size. The graph
    is that of this machine's own ``apt-cache`` unless one is given.
    """
    graph = own_packages() if available is None else available
    result: Packages = {}
    for root in sorted(roots):
        _walk(root, graph, result, set())
    return result


def has_debian() -> bool:
    return shutil.which("apt-cache") is not None and bool(own_packages())


def _walk(name: str, available: Mapping[str, Package], result: Packages, active: set[str]) -> None:
    if name in result or name in active or name not in available:
        return
    active.add(name)
    package = available[name]
    for need in package.needs:
        _walk(need, available, result, active)
    needs = tuple(sorted({need for need in package.needs if need in result}))
    result[name] = replace(package, needs=needs)
    active.remove(name)


@cache
def own_packages() -> Packages:
    """The packages that this machine's own apt offers."""
    run = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=False)
    return available(run.stdout)


def available(text: str) -> Packages:
    """Return the packages that ``apt-cache dumpavail`` printed as *text*, of each the newest."""
    provided: dict[str, str] = {}
    raw: dict[str, tuple[int, str, str]] = {}
    for paragraph in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.split("\n")
            if ": " in line and not line.startswith(" ")
        )
        name = fields.get("Package")
        if name is None:
            continue
        needs = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
        size = int(fields.get("Installed-Size", "1")) * 1024 + 1024
        raw[name] = (size, needs, fields.get("Version", "1"))
        for item in fields.get("Provides", "").split(","):
            provided.setdefault(item.split("(")[0].strip(), name)
    result: Packages = {}
    for name, (size, needs, version) in raw.items():
        chosen = _choose(needs, raw, provided)
        clean = "".join(c if c.isalnum() or c in "+._" else "_" for c in version)
        result[name] = Package(size, tuple(need for need in chosen if need != name), clean)
    return result


def _choose(needs: str, raw: Mapping[str, object], provided: Mapping[str, str]) -> list[str]:
    chosen = []
    for clause in needs.split(","):
        for option in clause.split("|"):
            name = option.split("(")[0].split(":")[0].strip()
            name = name if name in raw else provided.get(name, "")
            if name:
                chosen.append(name)
                break
    return chosen
