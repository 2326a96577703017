"""Two images, side by side: which layers, store paths and files differ.

Where there is a diffoscope, and a sandbox for it, it looks into files of many kinds.
"""

import shutil
from collections.abc import Iterator

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError, NixSeedError, foreign, of_store
from nix_seed.core.values import dataclass
from nix_seed.core.words import human_size
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.image.diffoscope import diffoscope_at_hand, show_difference
from nix_seed.image.inspect import InspectedImage, inspect
from nix_seed.image.read.check import FileFacts, SeenPath
from nix_seed.image.read.safe_root import scratch_directory
from nix_seed.image.read.spec import RemoteSeed, read_seed
from nix_seed.image.rules.changes import PathDifference, SpecDifference, compare_specs
from nix_seed.image.rules.spec import CONTAINER_TIER
from nix_seed.registry.open import AnyReference, Stores, fetch
from nix_seed.registry.store import ImageStore

_MOST_PATHS = 20  # whose files are compared


@dataclass(frozen=True, slots=True)
class LayerPair:
    """The layers at one *position*, where they differ; None where one side has none."""

    position: int
    tier: str
    ours: Digest | None
    theirs: Digest | None


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file below a store path: what it is on each side, None where it is absent."""

    name: str
    ours: FileFacts | None
    theirs: FileFacts | None


@dataclass(frozen=True, slots=True)
class PathFiles:
    """The files in which a store path differs; *trouble* says why they could not be compared.

    *report* is diffoscope's, where that is installed and was wanted; *unshown* says why it has
    none.
    """

    path: StorePath
    files: tuple[FileDifference, ...]
    trouble: str | None = None
    report: str | None = None
    unshown: str | None = None


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """How two images of one system differ; in nothing at all if *same*."""

    digests: tuple[Digest, Digest]
    layers: tuple[LayerPair, ...]
    spec: SpecDifference
    files: tuple[PathFiles, ...]

    @property
    def same(self) -> bool:
        """Whether they are one image."""
        return self.digests[0] == self.digests[1]


def diff_images(
    stores: Stores, ours: AnyReference, theirs: AnyReference, *, diffoscope: bool = True
) -> ImageDiff:
    """Compare two images; their layers are read only where a store path differs.

    Raises ``InputError`` for what is no image of one system.
    """
    one, other = _open(stores, ours), _open(stores, theirs)
    difference = compare_specs(one.seed.spec, other.seed.spec)
    both = [path for path in difference.paths if path.ours and path.theirs][:_MOST_PATHS]
    program = diffoscope_at_hand() if diffoscope else None
    return ImageDiff(
        (one.image.digest, other.image.digest),
        tuple(_layers(one, other)),
        difference,
        tuple(_compare_path(one, other, path, program) for path in both),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    store: ImageStore
    image: InspectedImage
    seed: RemoteSeed


def _open(stores: Stores, reference: AnyReference) -> _Side:
    store = stores.open(reference)
    root = fetch(store, reference)
    with of_store():
        image = inspect(stores, reference.at(root.descriptor.digest))
    if not isinstance(image, InspectedImage):
        raise InputError(f"{reference} is an index of images", hint="name the image of one system")
    return _Side(store, image, read_seed(str(reference), root, store))


def _layers(one: _Side, other: _Side) -> Iterator[LayerPair]:
    ours, theirs = one.image.layers, other.image.layers
    for position in range(max(len(ours), len(theirs))):
        mine = ours[position].descriptor.digest if position < len(ours) else None
        its = theirs[position].descriptor.digest if position < len(theirs) else None
        if mine != its:
            groups = (one if mine is not None else other).seed.spec.layers
            # After the last comes the container's own.
            tier = groups[position].tier if position < len(groups) else CONTAINER_TIER
            yield LayerPair(position, tier, mine, its)


def _compare_path(one: _Side, other: _Side, path: PathDifference, program: str | None) -> PathFiles:
    sides = _seen(one, path, 0), _seen(other, path, 1)
    try:
        ours, theirs = (side.files() for side in sides)
    except NixSeedError as error:
        return PathFiles(path.path, (), error.message)
    both = ((name, ours.get(name), theirs.get(name)) for name in sorted({*ours, *theirs}))
    found = tuple(FileDifference(name, here, there) for name, here, there in both if here != there)
    if program is None:
        return PathFiles(path.path, found)
    try:
        return PathFiles(path.path, found, report=_report(sides, program))
    except NixSeedError as error:
        return PathFiles(path.path, found, unshown=error.message)


def _seen(side: _Side, path: PathDifference, which: int) -> SeenPath:
    position, paths = path.layers[which], side.seed.spec.paths
    assert position is not None
    beside = tuple(paths[each] for each in side.seed.spec.layers[position].paths)
    return SeenPath(side.store, side.seed.manifest.layers[position], paths[path.path], beside)


def _report(sides: tuple[SeenPath, SeenPath], program: str) -> str:
    """Unpack a path from both images and let diffoscope, the *program*, compare them."""
    path, size = sides[0].info.path, sum(side.info.nar_size for side in sides)
    with foreign(f"unpacking {path}", OSError), scratch_directory("nix-seed-diff-") as scratch:
        free = shutil.disk_usage(scratch).free
        if size > free:
            raise CouldNotCheck(
                f"it has {human_size(size)} on both sides, and {scratch.parent} has"
                f" {human_size(free)} free: point TMPDIR at a larger disk"
            )
        for name, side in zip(("first", "second"), sides, strict=True):
            (scratch / name).mkdir()
            side.unpack(scratch / name)
        return show_difference(program, scratch, f"first{path}", f"second{path}")
