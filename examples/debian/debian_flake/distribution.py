"""``make distribution``: from apt's lists to a flake whose packages need no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from debian_flake.apt import Apt, Package
from debian_flake.errors import Failure
from debian_flake.licence import guess_spdx
from debian_flake.resolve import Graph, resolve
from debian_flake.store import Store, fixed_path

FLAKE = Path(__file__).resolve().parent.parent / "flake"
SYSTEMS_FLAKE = FLAKE.parent / "systems" / "flake.nix"
# The systems whose packages Debian has, and what it calls their architecture.
ARCHITECTURES = {"x86_64-linux": "amd64", "aarch64-linux": "arm64"}
# The flake's code is written for x86_64. For arm64 the two change places in it.
_SWAPPED = {
    "ld-linux-x86-64.so.2": "ld-linux-aarch64.so.1",
    "ld-linux-aarch64.so.1": "ld-linux-x86-64.so.2",
    "x86_64": "aarch64",
    "aarch64": "x86_64",
    "x86-64": "aarch64",
}
# What the flake's nixpkgs-like names are made of; their dependencies come by themselves.
CORE = [
    "bash",
    "dash",
    "coreutils",
    "grep",
    "sed",
    "gawk",
    "findutils",
    "diffutils",
    "patch",
    "tar",
    "gzip",
    "bzip2",
    "xz-utils",
    "zstd",
    "git",
    "ca-certificates",
    "nix-bin",
    "curl",
    "openssl",
    "libssl-dev",
    "zlib1g-dev",
    "pkg-config",
    "make",
    "gcc",
    "g++",
    "binutils",
    "patchelf",
    "libc6",
    "libc6-dev",
    "libc-bin",
    "python3",
    "gdb",
    "busybox-static",
]
Say = Callable[[str], None]


def default_cache() -> Path:
    """Return where downloaded packages are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "debian-flake"


@dataclass(frozen=True, slots=True)
class Maker:
    """All that a distribution is made with."""

    say: Say
    apt: Apt = field(default_factory=Apt)
    store: Store = field(default_factory=Store)
    cache: Path = field(default_factory=default_cache)
    system: str = "x86_64-linux"

    def make(self, directory: Path, extra: Iterable[str] = ()) -> Path:
        """Write the flake to the directory and its packages' files to the store."""
        check_target(directory)
        lock = self._lock(extra)
        with replaced(directory) as fresh:
            self.write(fresh, lock)
        self.say(f"flake written: {directory}")
        return directory

    def make_for(self, systems: Sequence[str], directory: Path, extra: Sequence[str]) -> Path:
        """Write one flake for several systems: a whole one for each, in a directory of its name."""
        check_target(directory)
        makers = [self._other(system) for system in systems]
        locks = [maker._lock(extra) for maker in makers]
        with replaced(directory) as fresh:
            for maker, lock in zip(makers, locks, strict=True):
                maker.write(fresh / maker.system, lock)
            shutil.copy(SYSTEMS_FLAKE, fresh)
        self.say(f"flake written: {directory}")
        return directory

    def _other(self, system: str) -> Maker:
        """Return the maker for another system, with the lists of its architecture."""
        if system == self.system:
            return self
        architecture = ARCHITECTURES[system]
        apt = replace(
            self.apt, architecture=architecture, lists=self.cache.resolve() / f"apt-{architecture}"
        )
        return replace(self, system=system, apt=apt)

    def write(self, directory: Path, lock: object) -> None:
        """Write the flake's code and its lock to a directory that does not exist yet."""
        shutil.copytree(FLAKE, directory)
        if self.system == "aarch64-linux":
            for file in directory.iterdir():
                file.write_text(_swap(file.read_text()))
        (directory / "packages.json").write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")

    def _lock(self, extra: Iterable[str]) -> dict[str, object]:
        """Put the packages' files into the store, and return what the flake says of them."""
        self.apt.update()
        index = self.apt.packages()
        graph = resolve([*CORE, *extra], index)
        packages = [index[name] for name in graph]
        total = sum(package.size for package in packages) / 1e6
        self.say(f"{len(packages)} packages, {total:.0f} MB to unpack")
        paths = self._add(packages)
        return {
            "formatVersion": 1,
            "busybox": self._busybox(index["busybox-static"]),
            "packages": self._entries(packages, graph, paths),
        }

    def _add(self, packages: list[Package]) -> dict[str, str]:
        """Add the packages' files to the store; return store path by package name."""
        paths = {p.name: fixed_path(p.sha256, p.store_name) for p in packages}
        absent = self.store.missing(list(paths.values()))
        wanted = [package for package in packages if paths[package.name] in absent]
        if wanted:
            files = self._download(wanted)
            self.say(f"adding {len(files)} files to the Nix store")
            added = set(self.store.add_fixed(files))
            for package in wanted:
                if paths[package.name] not in added:
                    raise Failure(
                        f"{package.store_name} is not the file that apt's index promises",
                        f"remove {self.cache} and run this again",
                    )
        return paths

    def _download(self, packages: list[Package]) -> list[Path]:
        debs = self.cache / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        # The hash in the name keeps two suites' files apart that share a version.
        files = {p.name: debs / p.sha256[:16] / p.store_name for p in packages}
        wanted = [p for p in packages if not files[p.name].exists()]
        if wanted:
            self.say(f"downloading {len(wanted)} packages")
            with tempfile.TemporaryDirectory(dir=debs) as fresh:
                self.apt.download(wanted, Path(fresh))
                for package in wanted:
                    files[package.name].parent.mkdir(exist_ok=True)
                    _downloaded(Path(fresh), package).rename(files[package.name])
        return list(files.values())

    def _busybox(self, package: Package) -> dict[str, str]:
        """Add the static busybox, which runs the first build, as a tree of its own."""
        path = self._real(fixed_path(package.sha256, package.store_name))
        with tempfile.TemporaryDirectory() as work:
            _run(["dpkg-deb", "-x", str(path), f"{work}/deb"])
            binaries = Path(work, package.store_name.removesuffix(".deb"), "bin")
            binaries.mkdir(parents=True)
            source = next(f for f in Path(work, "deb").rglob("bin/busybox") if f.is_file())
            shutil.copy(source, binaries / "busybox")
            # busybox looks at the name it is called by, and Nix calls builders by their file's.
            (binaries / "sh").symlink_to("busybox")
            tree = binaries.parent
            self.store.add_tree(tree)
            sha256 = _run(["nix-hash", "--type", "sha256", str(tree)]).strip()
            return {"name": tree.name, "sha256": sha256}

    def _real(self, store_path: str) -> Path:
        return Path(f"{self.store.root or ''}{store_path}")

    def _entries(
        self, packages: list[Package], graph: Graph, paths: Mapping[str, str]
    ) -> dict[str, object]:
        licences = self._licences(packages, paths)
        return {
            p.name: {
                "version": p.version,
                "filename": p.filename,
                "storeName": p.store_name,
                "sha256": p.sha256,
                "size": p.size,
                "depends": list(graph[p.name]),
                "description": p.description,
                "homepage": p.homepage,
                "free": not p.section.startswith("non-free"),
                "spdxId": licences[p.name],
            }
            for p in packages
        }

    def _licences(self, packages: list[Package], paths: Mapping[str, str]) -> dict[str, str | None]:
        """Return the licence by package name; read once per file, then kept in the cache."""
        kept_in = self.cache / "licences.json"
        kept: dict[str, list[str | None]] = (
            json.loads(kept_in.read_text()) if kept_in.exists() else {}
        )
        unread = [p for p in packages if p.sha256 not in kept]
        if unread:
            self.say(f"reading the licences of {len(unread)} packages")
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                files = [self._real(paths[p.name]) for p in unread]
                found = pool.map(read_licence, files, [p.name for p in unread])
                kept |= {p.sha256: list(pair) for p, pair in zip(unread, found, strict=True)}
            _replace(kept_in, json.dumps(kept, indent=0, sort_keys=True))
        by_name = {p.name: kept[p.sha256] for p in packages}
        # A package whose documentation is a link to another's has the other's licence.
        return {
            name: spdx or by_name.get(elsewhere or "", [None])[0]
            for name, (spdx, elsewhere) in by_name.items()
        }


def read_licence(deb: Path, name: str) -> tuple[str | None, str | None]:
    """Return (SPDX identifier, other package that holds the copyright file); either may be None."""
    folder = f"./usr/share/doc/{name}"
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as run:
        try:
            with tarfile.open(fileobj=run.stdout, mode="r|") as tar:
                for member in tar:
                    if member.issym() and member.name in {folder, f"{folder}/copyright"}:
                        other = Path(member.linkname.replace("/copyright", "")).name
                        return None, other
                    if member.name == f"{folder}/copyright" and (text := tar.extractfile(member)):
                        return guess_spdx(text.read().decode(errors="replace")), None
        finally:
            run.terminate()
    return None, None


def is_distribution(directory: Path) -> bool:
    """Tell whether the directory is a distribution, for one system or for several."""
    return any(directory.glob("packages.json")) or any(directory.glob("*-linux/packages.json"))


def check_target(directory: Path) -> None:
    """Refuse to write over anything but an earlier distribution."""
    if directory.exists() and not is_distribution(directory):
        raise Failure(
            f"{directory} exists and is no distribution: it has no packages.json",
            "name a directory that does not exist yet",
        )


@contextmanager
def replaced(directory: Path) -> Iterator[Path]:
    """Give a path to write to, which then takes the directory's place: it is whole at all times."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as work:
        fresh = Path(work, "flake")
        yield fresh
        if directory.exists():
            directory.rename(Path(work, "old"))
        fresh.rename(directory)


def _swap(text: str) -> str:
    return re.sub("|".join(map(re.escape, _SWAPPED)), lambda found: _SWAPPED[found[0]], text)


def _downloaded(folder: Path, package: Package) -> Path:
    """Return apt's name for the file, in which `:` and `~` may be escaped."""
    version = package.version.replace(":", "%3a")
    found = sorted(folder.glob(f"{package.name}_{version}_*.deb"))
    if len(found) != 1:
        raise Failure(f"apt did not download {package.name} {package.version}", "run this again")
    return found[0]


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


def _run(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        raise Failure(f"{command[0]} not found", "run this on Debian, with Nix (nix-bin) installed")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
