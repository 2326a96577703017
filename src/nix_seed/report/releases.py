"""What was released before and after an image, and what each release made people pull."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from nix_seed.core.digests import Digest
from nix_seed.core.errors import NixSeedError
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.manifest import Manifest
from nix_seed.registry.open import choose_system
from nix_seed.registry.store import ImageStore
from nix_seed.release.ledger import LoggedLedger
from nix_seed.release.rules.record import Record
from nix_seed.release.verifiers import Verifiers

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
            manifest = Manifest.parse(found.body, f"{place}@{found.descriptor.digest}")
        except NixSeedError:
            continue
        return found.descriptor.digest, {each.digest: each.size for each in manifest.layers}
    return None
