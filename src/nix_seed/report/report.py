"""Everything there is to say of one image, gathered for a page; a part that is missing says why."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeVar

from nix_seed.core import errors
from nix_seed.core.digests import Digest
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import Nix
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.image.plan import compare_with_base, licences_of_flake, read_lock
from nix_seed.image.read.spec import RemoteSeed, SeedImage, open_seed_image
from nix_seed.image.request import Request
from nix_seed.image.rules.changes import PlanDiff
from nix_seed.image.rules.contents import EXECUTABLE, PLAIN
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.licences import Licences
from nix_seed.licences.rules.judge import Judged
from nix_seed.registry.open import AnyReference, Stores, choose_system
from nix_seed.registry.store import ImageStore
from nix_seed.release.ledger import LoggedLedger
from nix_seed.release.load import LoadedPolicy, verifiers_of
from nix_seed.release.rules.answer import Verification
from nix_seed.release.rules.record import Record
from nix_seed.release.verifiers import Verifiers
from nix_seed.release.verify import Query, verify_image
from nix_seed.roots.roots import RootsReport, report_roots, roots_of_paths
from nix_seed.roots.rules.roots import Walk, walk_roots
from nix_seed.sbom.sbom import attached_licences
from nix_seed.trust.rules.policy import Policy
from nix_seed.use.mount.seed import mounted_layers

_MOST = 20


@dataclass(frozen=True, slots=True)
class ListedRelease:
    """One release: *image* is that of the page's system, None where it could not be read.

    *size* is what all of its layers are to pull, *new* what those are that the release before
    lacks: in bytes. *time* is a moment by which it is proved to have been there.
    """

    commit: Commit
    time: datetime | None
    promoters: tuple[str, ...]
    image: Digest | None = None
    size: int = 0
    new: int = 0


@dataclass(frozen=True, slots=True)
class ListedReleases:
    """The *latest* releases, the last one first, of so many *in_all*."""

    latest: tuple[ListedRelease, ...]
    in_all: int


def find_releases(
    by: Verifiers, places: Sequence[ImageStore], repository: str, system: str
) -> ListedReleases:
    """Return the releases of *repository* that *places* list, each with its image of *system*.

    Raises what walking the ledger does. An image that cannot be read is left out of its release.
    """
    records = LoggedLedger((by,), places, repository).records()
    found = list(_releases(records[-_MOST - 1 :], places, system))
    return ListedReleases(tuple(found[: -_MOST - 1 : -1]), len(records))


def _releases(
    records: Sequence[Record], places: Sequence[ImageStore], system: str
) -> Iterator[ListedRelease]:
    before: set[Digest] = set()
    for record in records:
        signers = tuple(each.id for each in record.promoters)
        release = ListedRelease(record.predicate.commit, record.time, signers)
        image = _image(places, record.predicate.index, system)
        if image is None:
            yield release
            continue
        digest, layers = image
        new = sum(size for layer, size in layers.items() if layer not in before)
        before = set(layers)
        yield replace(release, image=digest, size=sum(layers.values()), new=new)


def _image(
    places: Sequence[ImageStore], index: Digest, system: str
) -> tuple[Digest, dict[Digest, int]] | None:
    """Return the image of *system* in *index*, and its layers with their sizes in bytes."""
    for place in places:
        try:
            listed = place.get_manifest(index)
            if listed is None:
                continue
            found = choose_system(place, listed, system)
            manifest = found.manifest(f"{place}@{found.descriptor.digest}")
        except errors.NixSeedError:
            continue
        return found.descriptor.digest, {each.digest: each.size for each in manifest.layers}
    return None


_MOST_STOPS = 600  # a page of some 500 kB
_MOST_WAYS = 150
_MOST_FILES = 1000

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Absent:
    """A part that is not there. *state* is why: the three reasons never look alike.

    *hint* says how to have it.
    """

    state: Literal["not asked", "could not check", "checked and false"]
    reason: str
    hint: str = ""


NO_TABLE: Final = Absent(
    "not asked",
    "The image has no table of contents, so its files are not listed.",
    "images of format 2, compressed with zstd, have one: build it again",
)


@dataclass(frozen=True, slots=True)
class Change:
    """What whoever has the image *base* must pull.

    Sizes are of compressed layers, as they travel: *sizes* of each layer of the new image,
    *pull_bytes* of those numbered *pulled*.
    """

    base: str
    digest: Digest
    diff: PlanDiff
    sizes: tuple[int, ...]
    pulled: tuple[int, ...]

    @property
    def pull_bytes(self) -> int:
        """What is pulled, of ``total_bytes``."""
        return sum(self.sizes[n] for n in self.pulled)

    @property
    def total_bytes(self) -> int:
        """All layers."""
        return sum(self.sizes)


@dataclass(frozen=True, slots=True)
class JudgedPaths:
    """The licence of each store path of the image; *unjudged* are those the flake knows nothing of.

    Without a *flake* it is what a bill of materials says that is attached to the image. *problem*
    is why ``meta`` could not be read at all.
    """

    flake: str | None
    judged: tuple[Judged, ...]
    unjudged: tuple[StorePath, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundRoots:
    """The ends of the image's graph, and the graph as a walk."""

    report: RootsReport
    walk: Walk


class ListedFile(NamedTuple):
    """A file of the image: its *size* in bytes, its *layer* (the first is 1), and its *path*."""

    size: int
    layer: int
    path: str


@dataclass(frozen=True, slots=True)
class ListedFiles:
    """The *largest* files of an image, of so many *in_all*, as its table of contents lists them."""

    largest: tuple[ListedFile, ...]
    in_all: int


@dataclass(frozen=True, slots=True)
class TrustAnswer:
    """The answer of ``verify`` by *policy*, at the moment *now*."""

    policy: Policy
    verification: Verification
    now: datetime


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image and all that was found out about it. *reference* is as it was given.

    *command* is what gets just this image, for people to copy. *releases* is None where the policy
    knows nobody who releases.
    """

    reference: str
    image: InspectedImage
    spec: Spec
    change: Change | Absent
    licences: JudgedPaths | Absent
    trust: TrustAnswer | Absent
    roots: FoundRoots | Absent
    command: str = ""
    files: ListedFiles | Absent = NO_TABLE
    releases: ListedReleases | Absent | None = None


def part(gather: Callable[[], Found]) -> Found | Absent:
    """Return what *gather* does, or why it does not: a report lacks a part rather than failing.

    ``InputError`` passes: whoever asked for something that cannot be is told so.
    """
    try:
        return gather()
    except errors.CheckedFalse as error:
        return Absent("checked and false", _words(error), error.hint or "")
    except (errors.CouldNotCheck, errors.NixFailed) as error:
        return Absent("could not check", _words(error), error.hint or "")


def _files(seed: RemoteSeed) -> ListedFiles:
    """Return the largest files of *seed*; ``CheckedFalse`` where its table of contents lies."""
    tables = [layer.contents for layer in mounted_layers(seed)]
    files = (
        (size, number, node)
        for number, table in enumerate(tables)
        for node, (kind, size) in enumerate(zip(table.kinds, table.sizes, strict=True))
        if kind in (PLAIN, EXECUTABLE)
    )
    chosen = sorted(heapq.nlargest(_MOST_FILES, files), key=lambda each: (-each[0], *each[1:]))
    largest = tuple(
        ListedFile(size, number + 1, tables[number].path(node)) for size, number, node in chosen
    )
    kinds = (table.kinds for table in tables)
    return ListedFiles(largest, sum(each.count(PLAIN) + each.count(EXECUTABLE) for each in kinds))


def _words(error: errors.NixSeedError) -> str:
    return error.message if not error.detail else f"{error.message}\n{error.detail}"


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What to find out about the image *reference*; of an index, about *system*'s.

    *base* is a previous image, *flake* (as it was *named*) and *attr* what it was built from;
    *policy* whom to believe, with a *query* and what is kept of logs in *state*. Without *walk* its
    trust roots are left out.
    """

    stores: Stores
    nix: Nix
    reference: AnyReference
    system: str
    base: AnyReference | None
    named: str | None
    flake: str
    attr: str | None
    policy: LoadedPolicy | None
    query: Query
    state: Path
    walk: bool

    def gather(self) -> ImageReport:
        """Return the report; ``InputError`` where there is no such seed."""
        tell(Stage("read", f"reading {self.reference}"))
        seed = open_seed_image(self.stores, self.reference, self.system)
        at = self.reference.at(seed.descriptor.digest)
        with errors.of_store():
            image = inspect(self.stores, at)
        if not isinstance(image, InspectedImage):
            hint = "name one system: --system"
            raise errors.InputError(f"{self.reference} is an index of images", hint=hint)
        licences = self._licences(seed)
        judged = licences if isinstance(licences, Licences) else None
        by = None if self.policy is None else verifiers_of(self.policy, self.stores, self.state)
        return ImageReport(
            reference=str(self.reference),
            image=image,
            spec=seed.spec,
            change=self._change(seed, image),
            licences=licences
            if not isinstance(licences, Licences)
            else self._judged(seed, licences.judgement.paths, licences.problem),
            trust=self._trust(by, at),
            roots=part(lambda: self._roots(seed, judged))
            if self.walk
            else Absent("not asked", "The trust roots were not asked for.", "leave out --no-roots"),
            command=f"nix-seed run --image {self.reference} -- nix build"
            if isinstance(at, LayoutReference)
            else f"docker pull {at}",
            files=part(lambda: _files(seed)) if seed.spec.has_contents else NO_TABLE,
            releases=self._releases(by, at, seed.spec.system),
        )

    def _change(self, seed: RemoteSeed, image: InspectedImage) -> Change | Absent:
        base = self.base
        if base is None and self.named is not None and seed.spec.kind == "seed":
            lock = read_lock(self.nix, self.nix.metadata(self.flake))
            base = None if lock is None else lock.reference(seed.spec.system)
        if base is None:
            reason = "No previous image was named, so nothing was compared."
            return Absent("not asked", reason, "name one: nix-seed report … --base REF")
        compared = base
        return part(lambda: self._compare(seed, image, compared))

    def _compare(self, seed: RemoteSeed, image: InspectedImage, base: AnyReference) -> Change:
        """Say what a consumer of *base* must pull; ``InputError`` if it is of another system."""
        old = open_seed_image(self.stores, base, seed.spec.system)
        if old.spec.system != seed.spec.system:
            raise errors.InputError(
                f"the base {base} is for {old.spec.system}, the image for {seed.spec.system}",
                hint="name a base of the same system",
            )
        at_hand = {layer.digest for layer in old.manifest.layers}
        layers = [layer.descriptor for layer in image.layers]
        return Change(
            base=str(base),
            digest=old.descriptor.digest,
            diff=compare_with_base(seed.spec, old.spec),
            sizes=tuple(layer.size for layer in layers),
            pulled=tuple(n for n, layer in enumerate(layers) if layer.digest not in at_hand),
        )

    def _licences(self, seed: SeedImage) -> Licences | JudgedPaths | Absent:
        """Return what the flake says of licences; without one, what is attached to the image."""
        if self.named is None:
            reason = "The image states what was withheld; the licences of the rest are its flake's "
            hint = "name the flake: nix-seed report … --flake ."
            return part(lambda: self._attached(seed)) or Absent("not asked", f"{reason}word.", hint)
        spec = seed.spec
        request = Request(self.flake, spec.choice(self.attr), spec.compressor)
        return part(lambda: licences_of_flake(self.nix, request))

    def _attached(self, seed: SeedImage) -> JudgedPaths | None:
        """Say what a bill of materials says that is attached; None where there is none.

        Raises ``CheckedFalse`` where none of those attached is of this image, ``CouldNotCheck``
        where it cannot be told which one to believe.
        """
        told, trouble = attached_licences(seed)
        if isinstance(trouble, errors.InputError):
            hint = "name the flake: nix-seed report … --flake ."
            raise errors.CouldNotCheck(trouble.message, hint=hint)
        if trouble is not None:
            raise trouble
        return self._judged(seed, told) if told else None

    def _judged(
        self, seed: RemoteSeed, known: Mapping[StorePath, Judged], problem: str | None = None
    ) -> JudgedPaths:
        paths = sorted(seed.spec.paths)
        return JudgedPaths(
            flake=self.named,
            judged=tuple(known[path] for path in paths if path in known),
            unjudged=tuple(path for path in paths if path not in known),
            problem=problem,
        )

    def _trust(self, by: Verifiers | None, image: AnyReference) -> TrustAnswer | Absent:
        if by is None:
            reason = "No policy says whom to believe, so nobody's word was asked for."
            return Absent("not asked", reason, "name one: nix-seed report … --policy trust.toml")
        return part(lambda: TrustAnswer(by.policy, verify_image(by, image, self.query), by.now))

    def _releases(
        self, by: Verifiers | None, image: AnyReference, system: str
    ) -> ListedReleases | Absent | None:
        """Say what else was released where *image* lies, and where evidence was named."""
        if by is None or not by.policy.promoters or by.policy.source is None:
            return None
        source = by.policy.source
        tell(Stage("releases", "reading what was released"))

        def find() -> ListedReleases:
            places = [self.stores.open(each) for each in (image, *self.query.evidence)]
            return find_releases(by, places, source, system)

        return part(find)

    def _roots(self, seed: RemoteSeed, licences: Licences | None) -> FoundRoots:
        """Follow the image to its trust roots: by the recipe, if *licences* were read of one.

        Else by what this machine's store knows of its paths.
        """
        tell(Stage("roots", "following the image to its trust roots"))
        if not self.nix.is_at_hand():
            raise errors.CouldNotCheck(
                "there is no Nix on this machine, which knows the derivations",
                hint="make the report where the image was built",
            )
        unknown: Sequence[StorePath]
        if licences is None:
            try:
                roots, unknown = roots_of_paths(self.nix, seed.name, seed.spec.paths)
            except errors.InputError as error:
                # Nobody asked for the impossible: the image is merely from elsewhere.
                hint = "name the flake that the image was built from, with --flake"
                raise errors.CouldNotCheck(error.message, hint=hint) from error
        else:
            roots = licences.roots
            ends = {end.path for end in roots.ends}
            unknown = [p for p in seed.spec.paths if p not in roots.makers and p not in ends]
        report = report_roots(self.nix, roots, unknown)
        matter = [*report.findings.executed, *report.findings.binaries]
        wanted = [each.path for each in matter[:_MOST_WAYS]]
        walk = walk_roots(roots, _MOST_STOPS, wanted)
        return FoundRoots(report, walk)
