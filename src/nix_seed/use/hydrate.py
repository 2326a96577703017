"""From an image straight into a Nix store: fetched, decoded, verified and unpacked side by side.

Nothing is registered before all of it is in place and proved, so at any moment the database tells
the truth; what a killed run left in place is found right by its NAR hash, and not fetched again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from nix_seed.core.declared import Declared, at
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, NixFailed
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import explained
from nix_seed.core.processes import cores
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.flake.nix import DerivationReader, Nix
from nix_seed.formats.nix.store_path import Derivation, StorePath, closure_in
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.read.safe_root import remove
from nix_seed.image.read.spec import RemoteSeed, open_seed_image
from nix_seed.licences.rules.judge import Withheld, check_accepted
from nix_seed.registry.open import AnyReference, Stores, choose_system, fetch
from nix_seed.registry.store import Fetched, ImageStore
from nix_seed.use.hydrate_layer import LayerTask, Target, Workers, layer_tasks, workers
from nix_seed.use.mount.owed import state_directory
from nix_seed.use.rules.subset import FIRST_TIERS, INPUT_TIERS, paths_of_tiers
from nix_seed.use.store import (
    PARTIAL,
    add_new_files,
    locked_store,
    register_paths,
    tidied,
    uncollected,
    valid_paths,
)

if TYPE_CHECKING:
    from nix_seed.formats.nix.addressed import AddressedFile
    from nix_seed.use.mount.seed import MountableSeed
    from nix_seed.use.rules.tree import StoreTree

_LEAST_WORKERS = 2  # streams at once, however few the cores; more contend for the disk
# With more cores than this, those idle while the largest layer ends are worth threads' price.
_FEW_CORES = 4


@dataclass(frozen=True, slots=True)
class Seconds:
    """*fetch*, *decode* and *unpack* (writing, hashing) summed over workers; the rest by clock."""

    fetch: float = 0.0
    decode: float = 0.0
    unpack: float = 0.0
    register: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerHydrated:
    """An event: of *layer*, so many *paths* are in place; *fetched* bytes, all or parts of it."""

    layer: Digest
    tier: str
    paths: int
    fetched: int


@dataclass(frozen=True, slots=True)
class Hydrated(Declared):
    """What the store gained: *added* paths; *skipped* ones were valid before.

    *reused* of the added lay there already, left by an interrupted run. *nix* is a directory of
    Nix's programs in the store, where the seed has one. The store is not *whole* while a mount
    shows what is still being fetched.
    """

    image: Digest
    nar_hash: str
    root: Path
    added: tuple[StorePath, ...]
    skipped: tuple[StorePath, ...]
    reused: int
    fetched: int = field(metadata=at("bytesFetched"))
    seconds: Seconds
    nix: Path | None
    whole: bool = True


class HydrateOptions(TypedDict, total=False):
    """What ``hydrate`` may be told besides; ``hydrate`` says what each means."""

    nix: Nix | None
    outputs: Sequence[str]
    system: str | None
    jobs: int | None
    case_hack: bool | None
    accepted: Sequence[str]
    project: str
    attr: str | None


def hydrate(
    stores: Stores,
    reference: AnyReference,
    root: Path = Path("/"),
    **options: Unpack[HydrateOptions],
) -> Hydrated:
    """Make the paths of the seed at *reference* valid in the store below *root*.

    *outputs* (``.#checks``, ``.#packages.default``) take only what these need to be built. *jobs*
    layers are worked on at once. *nix* registers where there is a database already, and evaluates;
    the default is what is on PATH. What the seed withholds (with *outputs*, of what these need) is
    got from its vendor, as the flake *project* says, whose attribute *attr* the seed was built for,
    where its licence is *accepted*: ``InputError`` otherwise. Raises ``CheckedFalse`` where the
    image is not what its digests and spec say; nothing is registered then.
    """
    start = time.perf_counter()
    outputs, accepted = options.get("outputs", ()), options.get("accepted", ())
    attr = options.get("attr")
    tell(Stage("spec", f"reading what {reference} holds"))
    seed = open_seed_image(stores, reference, options.get("system") or _own_system())
    lacking = seed.spec.withheld
    # To evaluate, as is done for outputs, is to fetch what evaluation reads.
    first = [item for item in lacking if not (outputs and item.derivation)]
    check_accepted(seed.spec.name, first, accepted)
    run = _Run(seed.store, seed, root, options)
    with locked_store(root), explained(f"writing to {root / 'nix/store'}"):
        _recover(root)
        if outputs:
            needed, lacking = run.needed(outputs, attr)
            check_accepted(seed.spec.name, lacking, accepted)
            run.add(needed)
        else:
            run.add(frozenset(seed.spec.paths))
        _recover(root)
    if lacking:
        run.complete(lacking, accepted, options.get("project", "."), attr)
    return run.result(seed.descriptor.digest, time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class Place:
    """A store below *root*, for *system* (by default this machine's).

    *found* is the image's manifest, where it is here already.
    """

    root: Path = Path("/")
    system: str | None = None
    found: Fetched | None = None


def mount_seed(
    stores: Stores, reference: AnyReference, where: Place, *, keep: bool = False
) -> Hydrated:
    """Make the paths of a seed valid in a store at once, by a mount that fills behind them.

    Two processes are left behind. The mount leaves when every path lies in the store; with *keep*,
    when it is told to. A store that is another user's stays that: but for mounting, the work is
    done as that user. Raises ``NotMountable`` where the seed has to be unpacked, ``InputError``
    where a mount is there that lacks some of it.
    """
    # Before another user's work begins, who may not read where our Python has this.
    import sqlite3  # noqa: F401

    from nix_seed.use.mount.linux import NotMountable, as_owner
    from nix_seed.use.mount.seed import open_mountable
    from nix_seed.use.mount.store import why_not_mounted_store

    start = time.perf_counter()
    problem = why_not_mounted_store(where.root)
    if problem is not None:
        raise NotMountable(problem)
    source = stores.open(reference)
    chosen = where.found or choose_system(
        source, fetch(source, reference), where.system or _own_system()
    )
    tell(Stage("spec", f"reading what {reference} holds"))
    mountable = open_mountable(str(reference), chosen, source)
    if mountable.seed.spec.withheld:
        raise NotMountable(f"{reference} withholds paths, which come from their vendors")
    root = where.root
    run = _Run(source, mountable.seed, root, {})
    with as_owner(root / "nix"), locked_store(root), explained(f"writing to {root / 'nix/store'}"):
        _recover(root)
        run.mount(mountable, keep=keep)
    return run.result(chosen.descriptor.digest, time.perf_counter() - start)


def mount_if_possible(
    stores: Stores, reference: AnyReference, where: Place, *, complete: bool = False
) -> Hydrated | None:
    """As ``mount_seed``; None, and it is told why, where the seed has to be unpacked.

    With *complete*, wait until the store is whole.
    """
    from nix_seed.use.mount.linux import NotMountable
    from nix_seed.use.mount.store import is_served, wait_until_whole

    if not isinstance(reference, Reference):
        return None  # on this disk already
    try:
        if is_served(where.root):
            raise NotMountable("another seed of this store is mounted, and filling")
        done = mount_seed(stores, reference, where)
    except NotMountable as error:
        tell(Stage("unpack", f"unpacking, not mounting: {error.message}"))
        return None
    if complete:
        wait_until_whole(where.root)
    return replace(done, whole=True) if complete else done


def _recover(root: Path) -> None:
    """Clean up after a mount that died."""
    if not state_directory(root).is_dir():
        return
    from nix_seed.use.mount.store import is_served, recover

    if not is_served(root):
        recover(root)


def _nix_for(root: Path) -> Nix:
    return Nix() if root == Path("/") else Nix(store=root.absolute())


def _own_system() -> str:
    from nix_seed.core.processes import current_system

    return current_system()


def _needed(
    seed: RemoteSeed, nix: Nix, outputs: Sequence[str], attr: str | None
) -> tuple[frozenset[StorePath], tuple[Withheld, ...]]:
    """Return what of the seed the *outputs*, as ``FLAKE#OUTPUT``, are built from.

    Its paths, and what it withholds, for which the flake says how it is made.
    """
    # Only here: a whole seed needs no evaluation, and should not wait for its imports.
    from nix_seed.flake.evaluate import evaluate_flake
    from nix_seed.use.rules.subset import Selection, needed_of, needed_outputs

    spec = seed.spec
    withheld = {item.path for item in spec.withheld}
    read = DerivationReader(nix)
    roots: set[StorePath] = set()
    flakes: dict[str, list[Selection]] = {}
    for text in outputs:
        flake, _, name = text.partition("#")
        flakes.setdefault(flake or ".", []).append(Selection.parse(name, spec.system))
    for flake, selections in flakes.items():
        evaluation = evaluate_flake(nix, flake, spec.choice(attr))
        wanted = needed_outputs(evaluation.ownership, selections)
        for path, names in wanted.items():
            made = read(path).outputs
            roots |= {made[name].path or path for name in names}
    missing = sorted(roots - spec.paths.keys() - withheld)
    if missing:
        shown = "\n".join(str(path) for path in missing[:20])
        raise CheckedFalse(
            f"{seed.name} lacks {len(missing)} of the things needed for {', '.join(outputs)}",
            detail=shown,
            hint="the seed is another commit's: build or name the one for this flake.lock",
        )
    roots |= paths_of_tiers(spec, FIRST_TIERS)
    # Evaluation reads these in any case.
    roots |= {item.path for item in spec.withheld if not item.derivation}
    return needed_of(spec, roots, lambda item: _made_from(item, read))


def _made_from(item: Withheld, read: Callable[[StorePath], Derivation]) -> Iterator[StorePath]:
    if item.derivation:
        derivation = read(StorePath.parse(item.derivation))
        yield from derivation.input_srcs
        for path, names in derivation.input_drvs.items():
            outputs = read(path).outputs
            yield from (found for name in names if (found := outputs[name].path) is not None)


class _Run:
    """One hydration: what it adds, and what that cost."""

    def __init__(
        self, source: ImageStore, seed: RemoteSeed, root: Path, options: HydrateOptions
    ) -> None:
        self._source = source
        self._seed = seed
        self._root = root
        self._nix = options.get("nix") or _nix_for(root)
        self._jobs = options.get("jobs") or max(cores(), _LEAST_WORKERS)
        self._case_hack = options.get("case_hack")
        self.seconds = Seconds()
        self.fetched = self.reused = 0
        self.added: set[StorePath] = set()
        self.skipped: set[StorePath] = set()
        # What a mount shows: sooner asked than the mount itself, while that begins to fetch.
        self._shown: StoreTree | None = None

    def add(self, paths: Collection[StorePath]) -> None:
        """Have *paths*, of the spec and closed, valid in the store."""
        wanted = closure_in(self._seed.spec.paths, paths)
        # From knowing what is valid until all is registered, nothing may be collected.
        with uncollected(self._root):
            valid = valid_paths(self._root)
            self.skipped |= (wanted & valid) - self.added
            missing = wanted - valid
            if missing:
                self._unpack(missing)
                self._register(missing)
        self.added |= missing

    def needed(
        self, outputs: Sequence[str], attr: str | None
    ) -> tuple[frozenset[StorePath], tuple[Withheld, ...]]:
        """As ``_needed``, with no more in the store before than evaluation takes.

        So an output that the flake does not have is found out before the rest is fetched.
        """
        spec = self._seed.spec
        if self._nix.is_at_hand():
            self.add(paths_of_tiers(spec, INPUT_TIERS))
            # Some flakes build things while they are evaluated, which takes more.
            with contextlib.suppress(NixFailed):
                return _needed(self._seed, self._nix, outputs, attr)
        self.add(paths_of_tiers(spec, FIRST_TIERS))
        return _needed(self._seed, self.nix_at_hand(), outputs, attr)

    def mount(self, mountable: MountableSeed, *, keep: bool) -> None:
        """Have all paths of the seed valid in the store, shown by a mount."""
        from nix_seed.use.mount.store import StoreMount, mount_store, recover
        from nix_seed.use.rules.tree import StoreTree

        with uncollected(self._root):
            valid = valid_paths(self._root)
            wanted = frozenset(self._seed.spec.paths)
            self.skipped |= wanted & valid
            missing = wanted - valid
            if missing:
                recover(self._root)  # refuses, where another mount lives
                with tidied(self._root / "nix/store") as (store, left):
                    for name in left & {path.base_name for path in missing}:
                        remove(name, store)
                tell(Stage("mount", f"mounting {len(missing)} store paths"))
                mount_store(StoreMount(self._root, mountable, missing, self._source, keep))
                self._shown = StoreTree([layer.contents for layer in mountable.layers], None)
                # While the first frames arrive.
                files = add_new_files(self._root, mountable.written, wanted)
                self._register(missing, files)
        self.added |= missing

    def result(self, image: Digest, total: float) -> Hydrated:
        """Return what was done to the store, in *total* seconds."""
        return Hydrated(
            image=image,
            nar_hash=str(self._seed.spec.nar_hash),
            root=self._root,
            added=tuple(sorted(self.added, key=str)),
            skipped=tuple(sorted(self.skipped, key=str)),
            reused=self.reused,
            fetched=self.fetched + self._seed.fetched,
            seconds=replace(self.seconds, total=total),
            nix=self.seeds_nix(),
            whole=not state_directory(self._root).is_dir(),
        )

    def _unpack(self, missing: frozenset[StorePath]) -> None:
        infos = self._seed.spec.paths
        with tidied(self._root / "nix/store") as (store, left):
            hack = _case_hack(store) if self._case_hack is None else self._case_hack
            target = Target(store, hack, threads=_decoders(self._jobs))
            with workers(self._source, target, self._jobs) as pool:
                there = [infos[path] for path in sorted(missing) if path.base_name in left]
                intact = pool.intact(there) if there else frozenset()
                self.reused += len(intact)
                tasks = layer_tasks(self._seed, missing - intact)
                text = f"fetching {plural(len(missing - intact), 'store path')}"
                text += f" in {plural(len(tasks), 'layer')}"
                tell(Stage("layers", text, len(tasks)))
                self._layers(pool, tasks)

    def _layers(self, pool: Workers, tasks: Sequence[LayerTask]) -> None:
        for task, spent in pool.layers(tasks):
            self.fetched += spent.fetched
            self.seconds = replace(
                self.seconds,
                fetch=self.seconds.fetch + spent.fetch,
                decode=self.seconds.decode + spent.decode,
                unpack=self.seconds.unpack + spent.unpack,
            )
            tier = task.layer.annotations.get("io.nix-seed.tier", "")
            done = LayerHydrated(task.layer.digest, tier, len(task.wanted), spent.fetched)
            tell(done)

    def _register(
        self, missing: Collection[StorePath], files: Sequence[AddressedFile] = ()
    ) -> None:
        tell(Stage("register", f"registering {plural(len(missing), 'store path')}"))
        start = time.perf_counter()
        infos = [self._seed.spec.registrable(path) for path in sorted(missing)]
        register_paths(self._root, infos, self.nix_at_hand, files)
        spent = time.perf_counter() - start
        self.seconds = replace(self.seconds, register=self.seconds.register + spent)

    def complete(
        self, lacking: Sequence[Withheld], accepted: Sequence[str], project: str, attr: str | None
    ) -> None:
        """Get what is *lacking*, of what was withheld, and let what refers to it say so."""
        from nix_seed.use.withheld import dependents, obtain_withheld

        nix, spec = self.nix_at_hand(), replace(self._seed.spec, withheld=tuple(lacking))
        obtain_withheld(nix, spec, accepted, project, attr)
        valid = valid_paths(self._root)
        nix.register(info for info in dependents(spec, valid) if info.path in valid)

    def nix_at_hand(self) -> Nix:
        """Return the Nix on PATH, or where there is none, the seed's own, if it can run here."""
        if self._nix.is_at_hand():
            return self._nix
        own = self.seeds_nix()
        if own is not None and self._root == Path("/"):
            return replace(self._nix, bin_dir=own)
        return self._nix

    def seeds_nix(self) -> Path | None:
        """Return the directory of Nix's programs, if the seed has them and they are in place."""
        for path in sorted(self._seed.spec.paths, key=str):
            programs = self._root / str(path).lstrip("/") / "bin"
            if (
                os.path.lexists(programs / "nix-store")
                if self._shown is None
                else self._shown.has(path.base_name, "bin", "nix-store")
            ):
                return programs
        return None


def _decoders(jobs: int) -> int:
    """Return threads a worker decodes with: none where the workers already take every core."""
    return 0 if jobs >= cores() and cores() <= _FEW_CORES else min(4, cores())


def _case_hack(store: int) -> bool:
    """Whether names that differ only in case need Nix's suffix: on macOS, and where they clash."""
    if sys.platform == "darwin":
        return True
    probe, other = PARTIAL.decode() + "case", PARTIAL.decode() + "CASE"
    os.mkdir(probe, dir_fd=store)
    try:
        os.stat(other, dir_fd=store)
    except FileNotFoundError:
        return False
    finally:
        os.rmdir(probe, dir_fd=store)
    return True
