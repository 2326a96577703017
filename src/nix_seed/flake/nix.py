"""The only place that runs Nix: CppNix, Lix or Determinate, from 2.8 on.

Where versions differ in what they print, the older tools' stable formats are used: closures come
from ``nix-store --dump-db``, whose lines have not changed in a decade, rather than from the JSON
of ``nix path-info``, which has changed more than once. Settings are as Nix itself resolves them.
"""

import contextlib
import grp
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, BinaryIO

from nix_seed.core.errors import CouldNotCheck, InputError, NixFailed
from nix_seed.core.files import explained
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import tracked_files
from nix_seed.flake.nix_process import demand_store, is_one_of, run_logged
from nix_seed.flake.rules.nix_failures import INSTALL, NO_FLAKE, TOO_OLD, find_hint
from nix_seed.flake.rules.nix_log import NixLog
from nix_seed.formats.nix import database
from nix_seed.formats.nix.nar import hash_tree
from nix_seed.formats.nix.store_path import STORE_DIR, Derivation, PathInfo, StorePath

# Messages are matched and shown: they must not depend on the user's language.
_PLAIN_WORDS = {"LC_ALL": "C.UTF-8", "NIX_PAGER": "cat"}

# What `--offline` means, for every Nix the command may start, however deep.
OFFLINE = """substitute = false
substituters =
flake-registry =
tarball-ttl = 4294967295
download-attempts = 1
connect-timeout = 1
"""

# By these a machine's store may be another than the one at ``/nix``.
_ELSEWHERE = ("NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_DB_DIR")
_HERE = ("", "auto", "daemon", "local")  # values of NIX_REMOTE

# Far below what Linux and macOS accept as arguments.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class FlakeMetadata:
    """A flake that Nix has found: where its source lies, and how to name it purely."""

    url: str
    source: StorePath
    revision: str | None
    last_modified: int | None
    rev_count: int | None = None
    directory: str | None = None


@dataclass(frozen=True, slots=True)
class Nix:
    """A Nix and the store it works on.

    *store* is the root of a store of its own (``nix --store``), or ``None`` for the machine's.
    *settings* are Nix settings that are put before the user's own. Where *stop* is set, what runs
    is ended.
    """

    store: Path | None = None
    bin_dir: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    stop: threading.Event | None = None

    @property
    def root(self) -> Path:
        """Where the logical ``/nix/store`` is found on this machine's disk."""
        return self.store or Path("/")

    def at(self, path: object) -> Path:
        """Return where the absolute *path*, in the store, is found on this machine's disk."""
        return self.root / str(path).lstrip("/")

    def is_at_hand(self) -> bool:
        """Whether there is a Nix to run."""
        if self.bin_dir is None:
            return shutil.which("nix-store") is not None
        return os.path.exists(self.bin_dir / "nix-store")  # no error where a mount has died

    def has_derivations(self) -> bool:
        """Whether anything was evaluated in this store before; True where that is not told."""
        with contextlib.suppress(OSError), os.scandir(self.root / "nix/store") as entries:
            return any(entry.name.endswith(".drv") for entry in entries)
        return True

    def version(self) -> str:
        """Return what Nix says of itself: ``nix (Nix) 2.8.0``."""
        return self.run("nix", ["--version"], "asking Nix for its version").strip()

    def metadata(self, flake: str) -> FlakeMetadata:
        """Resolve and fetch *flake*; its lock file is neither written nor brought up to date."""
        doing = f"reading the flake {flake}"
        # Nix refuses a symlink to a flake.
        named = os.path.realpath(flake) if os.path.islink(flake.rstrip("/")) else flake
        arguments = ["flake", "metadata", "--json", "--no-write-lock-file", "--", named]
        with of_checkout(flake, reading=True):
            value = _json(self.run("nix", arguments, doing), doing)
        locked = value.get("locked") or {}
        source = self._source_of(value, doing)
        if "narHash" not in locked:
            locked["narHash"] = self.hash_path(self.at(source))
        return FlakeMetadata(
            url=_pure_url(value, locked, source),
            source=source,
            revision=locked.get("rev"),
            last_modified=value.get("lastModified", locked.get("lastModified")),
            rev_count=value.get("revCount", locked.get("revCount")),
            directory=locked.get("dir"),
        )

    def _source_of(self, metadata: dict[str, Any], doing: str) -> StorePath:
        """Return where the flake's tree lies in the store, having it put there if it does not.

        With lazy trees Nix names no path, and since 2.35 it may name one that it did not create.
        """
        path = metadata.get("path")
        if path and os.path.exists(self.at(path)):
            return StorePath.containing(path)
        url = str(metadata.get("url") or metadata.get("resolvedUrl") or "")
        archive = ["flake", "archive", "--json", "--no-write-lock-file", "--", url]
        found = _json(self.run("nix", archive, doing), doing).get("path")
        if not found:
            raise NixFailed(
                f"{doing}: Nix does not say where the flake's source is in its store",
                hint="set lazy-trees = false in nix.conf, if your Nix has that setting",
            )
        return StorePath.containing(found)

    def evaluate(self, expression: str, doing: str, *options: str) -> Any:
        """Evaluate *expression*, purely, to JSON."""
        return _json(
            self.run("nix", ["eval", "--json", *options, "--expr", expression], doing), doing
        )

    def hash_path(self, path: Path) -> str:
        """Return the SRI NAR hash of a file or directory."""
        with explained(f"hashing {path}"):
            return str(hash_tree(path))

    def read_derivation(self, path: StorePath) -> Derivation:
        """Parse a ``.drv`` of this store."""
        try:
            text = self.at(path).read_text("utf-8", "surrogateescape")
        except OSError as error:
            raise CouldNotCheck(
                f"cannot read the derivation {path}: {error.strerror}",
                hint="a garbage collection may have removed it: run the command again",
            ) from error
        return Derivation.parse(text, str(path))

    def realise(
        self, outputs: Mapping[StorePath, Iterable[str]], paths: Iterable[StorePath]
    ) -> None:
        """Build or substitute the *outputs* of derivations, and see that *paths* are there.

        What is valid already is not asked for.
        """
        asked = {(str(path), name) for path, names in outputs.items() for name in names}
        wanted, here = [str(path) for path in paths], set[tuple[str, str]]()
        if self._is_readable():
            with contextlib.suppress(OSError):
                where = self.root / database.DATABASE
                wanted = database.read_invalid_paths(where, wanted)
                here = set(database.read_made(where, [path for path, _ in asked]))
        wanted += [f"{path}!{name}" for path, name in sorted(asked - here)]
        for batch in _batches(wanted):
            arguments = ["--realise", "--quiet", "--no-gc-warning", *batch]
            self.run("nix-store", arguments, "building what the image is to hold")

    def invalid_paths(self, paths: Iterable[StorePath]) -> frozenset[StorePath]:
        """Return those of *paths* that this store does not have; nothing is fetched."""
        asked, found = sorted(map(str, paths)), set[StorePath]()
        if self._is_readable():
            with contextlib.suppress(OSError):
                where = self.root / database.DATABASE
                return frozenset(map(StorePath.parse, database.read_invalid_paths(where, asked)))
        for batch in _batches(asked):
            arguments = ["--check-validity", "--print-invalid", *batch]
            text = self.run("nix-store", arguments, "asking for store paths")
            found |= set(map(StorePath.parse, text.split()))
        return frozenset(found)

    def all_paths(self) -> str:
        """Return every path that this store has, sorted, a line each: there may be many thousands.

        They are read from its database where that is on this machine and readable. Else Nix lists
        them all, then looks at each; and fails, should another have deleted one between.
        """
        if self._is_readable():
            with contextlib.suppress(OSError):
                return database.list_valid_paths(self.root / database.DATABASE)
        try:
            there = set(self.run("nix", ["path-info", "--all"], "listing the store").split())
        except NixFailed:
            found = set()
            for name in os.listdir(self.root / "nix/store"):
                with contextlib.suppress(InputError):  # a lock, or what is not finished
                    found.add(StorePath.parse(f"{STORE_DIR}/{name}"))
            there = set(map(str, found - self.invalid_paths(found)))
        return "".join(f"{path}\n" for path in sorted(there))

    def fetch_inputs(self, flake: str) -> None:
        """Have the source trees of *flake*'s inputs, and of theirs, in the store."""
        arguments = ["flake", "archive", "--no-write-lock-file", "--", flake]
        self.run("nix", arguments, f"fetching the inputs of {flake}")

    def closure(self, paths: Iterable[StorePath]) -> dict[StorePath, PathInfo]:
        """Return what Nix knows of *paths* and of all they refer to, sorted by path."""
        return {info.path: info for info in self.path_infos(self.requisites(paths))}

    def requisites(self, paths: Iterable[StorePath]) -> frozenset[StorePath]:
        """Return *paths* and all they refer to; of derivations, all that they are built from."""
        wanted, found = sorted(map(str, paths)), set[str]()
        if self._is_readable():
            with contextlib.suppress(OSError):
                found = database.read_requisites(self.root / database.DATABASE, wanted)
        if not found.issuperset(wanted):
            for batch in _batches(wanted):
                arguments = ["--query", "--requisites", *batch]
                found |= set(self.run("nix-store", arguments, "listing the closure").split())
        return frozenset(map(StorePath.parse, found))

    def _is_readable(self) -> bool:
        """Whether the database may be read here, which is sooner done than starting a Nix."""
        here = os.environ.get("NIX_REMOTE", "") in _HERE
        return self.store is not None or (here and not any(map(os.environ.get, _ELSEWHERE)))

    def path_infos(self, paths: Iterable[StorePath]) -> list[PathInfo]:
        """Return what Nix knows of each of *paths*, sorted."""
        infos: list[PathInfo] = []
        asked = sorted(set(map(str, paths)))
        records = self.records(asked)
        if records is not None and len(records) == len(asked):
            return [each.info for each in records]
        for batch in _batches(asked):
            text = self.run("nix-store", ["--dump-db", *batch], "reading Nix's database")
            infos += database.parse_registration(text)
        return sorted(infos, key=lambda info: info.path)

    def records(self, paths: Iterable[str]) -> list[database.PathRecord] | None:
        """Return what this store's database holds of those of *paths* that are valid, sorted.

        None where it cannot be read from here.
        """
        if self._is_readable():
            with contextlib.suppress(OSError, InputError):
                return database.read_records(self.root / database.DATABASE, paths)
        return None

    def takes_unsigned(self) -> bool:
        """Whether its daemon lets this user add store paths that nobody has signed.

        Nix says so since 2.15. Before, its settings tell.
        """
        doing = "asking Nix's daemon whom it trusts"
        with contextlib.suppress(NixFailed):
            said = _json(self.run("nix", ["store", "ping", "--json"], doing), doing).get("trusted")
            if said is not None:
                return bool(said)
        return is_one_of(read_settings(self).get("trusted-users", "").split())

    def delete(self, paths: Iterable[StorePath]) -> None:
        """Delete *paths* and all that refers to them; ``NixFailed`` where something is in use."""
        named, doing = sorted(map(str, paths)), "deleting store paths"
        if named:
            query = ["--query", "--referrers-closure", *named]
            found = self.run("nix-store", query, doing).split()
            self.run("nix-store", ["--delete", *sorted({*named, *found})], doing)

    def add_root(self, link: Path, path: StorePath) -> None:
        """Keep *path* from the garbage collector for as long as *link* exists."""
        arguments = ["--realise", str(path), "--add-root", str(link), "--indirect"]
        self.run("nix-store", arguments, f"keeping {path}")

    def export_paths(self, paths: Sequence[StorePath], into: BinaryIO) -> None:
        """Write *paths*, references first, to an open file as ``nix-store --export`` does."""
        doing = "exporting store paths"
        self.run("nix-store", ["--export", *map(str, paths)], doing, stdout=into)

    def import_paths(self, export: BinaryIO) -> list[StorePath]:
        """Make the paths of an open ``nix-store --export`` file valid here; return them."""
        text = self.run("nix-store", ["--import"], "importing store paths", stdin=export)
        return [StorePath.parse(line) for line in text.split()]

    def register(self, infos: Iterable[PathInfo]) -> None:
        """Call *infos* valid, which lie in the store with the NAR hashes they state."""
        with tempfile.TemporaryFile() as records:
            records.write(database.format_registration(infos).encode())
            records.seek(0)
            self.run("nix-store", ["--load-db"], "registering store paths", stdin=records)

    def run(
        self,
        program: str,
        arguments: Sequence[str],
        doing: str,
        *,
        stdin: int | BinaryIO = subprocess.DEVNULL,
        stdout: int | BinaryIO = subprocess.PIPE,
    ) -> str:
        """Run one of Nix's programs and return what it prints."""
        command = [self._find(program), *self._flags(program), *arguments]
        if self.store is None:
            demand_store(os.environ)
        log = NixLog()
        try:
            environment = {**os.environ, **_PLAIN_WORDS}
            code, printed = run_logged(command, (stdin, stdout), environment, log, self.stop)
        except OSError as error:
            raise CouldNotCheck(f"{doing}: cannot start {command[0]}: {error.strerror}") from error
        if code != 0:
            detail = log.error
            hint = find_hint(detail) or self._age(detail)
            raise NixFailed(f"{doing}: {program} failed", detail=detail or None, hint=hint)
        return printed.decode("utf-8", "surrogateescape")

    def _age(self, detail: str) -> str | None:
        """Return that this Nix is old, where that is what *detail* complains of."""
        if TOO_OLD.search(detail) is None:
            return None
        command = [self._find("nix"), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return f"this Nix is too old for that ({said}): install a newer one; {INSTALL}"

    def _find(self, program: str) -> str:
        if self.bin_dir is not None:
            return str(self.bin_dir / program)
        found = shutil.which(program)
        if found is None:
            raise InputError(f"{program} is not installed, or not on PATH", hint=INSTALL)
        return found

    def _flags(self, program: str) -> Iterator[str]:
        if self.store is not None:
            yield from ("--store", str(self.store))
        own = {}
        if os.geteuid() == 0:
            try:
                grp.getgrnam("nixbld")
            except KeyError:  # as in most containers
                own = {"build-users-group": ""}
        for name, value in (own | dict(self.settings)).items():
            yield from ("--option", name, value)
        yield from ("--log-format", "internal-json")
        if program == "nix":
            yield from ("--extra-experimental-features", "nix-command flakes")


@contextlib.contextmanager
def ended_with_us(nix: Nix) -> Iterator[Nix]:
    """Return a Nix whose work ends where one part of it fails: nobody waits for the others."""
    stop = threading.Event()
    try:
        yield replace(nix, stop=stop)
    except BaseException:
        stop.set()
        raise


class DerivationReader:
    """Reads each derivation of a store once. A value that can be sent to another process."""

    def __init__(self, nix: Nix) -> None:
        self._nix = nix
        self._known: dict[StorePath, Derivation] = {}

    def __call__(self, path: StorePath) -> Derivation:
        """Return the derivation at *path*."""
        if path not in self._known:
            self._known[path] = self._nix.read_derivation(path)
        return self._known[path]


def _pure_url(value: dict[str, Any], locked: dict[str, Any], source: StorePath) -> str:
    """Name the very tree that was fetched, so that evaluation can be pure.

    A clean checkout or a remote flake is locked by its URL; a dirty or plain directory only by the
    NAR hash of its copy in the store.
    """
    url = value.get("url") or value.get("lockedUrl") or ""
    if locked.get("rev") is not None and url:
        return str(url)
    query = f"narHash={locked['narHash'].replace('+', '%2B').replace('=', '%3D')}"
    if "lastModified" in locked:
        query += f"&lastModified={locked['lastModified']}"
    if locked.get("dir"):
        query += f"&dir={locked['dir']}"
    return f"path:{source}?{query}"


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _json(text: str, doing: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise NixFailed(f"{doing}: Nix printed something that is not JSON") from error


@contextlib.contextmanager
def of_checkout(flake: str, *, reading: bool = False) -> Iterator[None]:
    """Say of a file that Nix misses in *flake* that Git does not track it, where that is why.

    Where the flake is not even there (which *reading* it tells), say what names one.
    """
    try:
        yield
    except NixFailed as error:
        below = re.search(r"[?&]dir=([^&#]*)", flake)
        place = Path(re.sub(r"^(path:|git\+file:(//)?)|[?#].*", "", flake)).absolute()
        directory = place / (below[1] if below else "")
        above = (directory, *directory.parents)
        root = next((each for each in above if (each / ".git").exists()), None)
        detail = error.detail or ""
        missed = _MISSED.search(detail)
        known = error.hint is not None and f"'flake:{flake}'" not in detail
        submodule = root and missed and _submodule_of(root, missed[1])
        if root and submodule and "submodules=1" not in flake:
            named = f"git+file://{root}?submodules=1"
            error.hint = (
                f"{submodule} is a submodule, which Nix leaves out: name the flake {named}; or, for"
                " Nix 2.27 and newer, let flake.nix say: inputs.self.submodules = true;"
            )
        elif root and missed and not flake.startswith("path:") and _is_left(root, missed[1]):
            add = f"git -C {shlex.quote(str(root))} add {shlex.quote(missed[1])}"
            error.hint = f"Nix sees only what Git tracks: {add}"
        elif directory.exists() and any((each / "flake.nix").exists() for each in above):
            pass
        elif reading and (directory.is_dir() or (not known and place.name in detail)):
            error.hint = NO_FLAKE
        raise


def _is_left(root: Path, name: str) -> bool:
    """Whether *name* is there and untracked; else another tree lacks a file called like it."""
    tracked = tracked_files(root) or ()
    return (root / name).exists() and not any(f"{file}/".startswith(f"{name}/") for file in tracked)


def _submodule_of(root: Path, name: str) -> str | None:
    """Return the submodule of the repository at *root* that *name* lies in, if it lies in one."""
    with contextlib.suppress(OSError):
        known = _SUBMODULE.findall((root / ".gitmodules").read_text("utf-8", "replace"))
        return next((path for path in known if f"{name}/".startswith(f"{path}/")), None)
    return None


_SUBMODULE = re.compile(r"^\s*path\s*=\s*(.+?)\s*$", re.M)
_MISSED = re.compile(r"(?:/nix/store/[^/']+|«[^»]+»)/([^']+)'(?:: No such file| does not exist)")

SHOW_SETTINGS = (["show-config"], ["config", "show"])
"""How Nix is asked for its settings: the older spelling first, which newer ones keep for a time."""


def read_settings(nix: Nix) -> dict[str, str]:
    """Return every setting by its name."""
    doing = "reading Nix's settings"
    try:
        return parse_settings(nix.run("nix", SHOW_SETTINGS[0], doing))
    except NixFailed:
        return parse_settings(nix.run("nix", SHOW_SETTINGS[1], doing))


def parse_settings(text: str) -> dict[str, str]:
    """Read what Nix prints of its settings."""
    pairs = (line.partition(" =") for line in text.splitlines())
    return {name: value.strip() for name, equals, value in pairs if equals}
