"""Keeps outputs in a repository, each path's in an index of its own, and finds them again.

Two jobs may write one index at once, and no registry compares before it writes: ``ensure`` leaves
it whole all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck, InputError, NixSeedError
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.manifest import EMPTY, Descriptor, Index, Manifest, MediaType
from nix_seed.outputs.rules import kept as rules
from nix_seed.registry.errors import NotTaken
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import ImageStore, NamedDocument, index_members, put_bytes

_TURNS = 30  # more than builders that list one path at once
CONFIG = Descriptor.of(MediaType.EMPTY, EMPTY)


@dataclass(frozen=True, slots=True)
class Listed:
    """What is kept of a path, the newest first; *troubles* are entries that cannot be read.

    *entries* are what the list names.
    """

    kept: tuple[rules.KeptOutput, ...] = ()
    troubles: tuple[InputError, ...] = ()
    entries: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Newest:
    """What was listed of the commit that was pushed last, by the hashes of its paths.

    *nars* are blobs of small NARs.
    """

    lists: dict[str, Listed]
    nars: dict[Digest, bytes]


def find_kept(store: ImageStore, hash_part: str, *, writing: bool = False) -> Listed:
    """Ask, by one request, what *store* keeps of the path with this hash; nothing is proved.

    ``CheckedFalse`` for what is no index. Who is *writing* next takes a refusal for nothing.
    """
    tag = rules.tag_of(hash_part)
    entries = listed_at(store, tag, writing=writing)
    return Listed(*rules.read_entries(entries, hash_part, f"{store}:{tag}"), entries)


def find_newest(store: ImageStore) -> Newest:
    """Ask, by one request, for all outputs of the commit that was pushed last; nothing is proved.

    What cannot be read of it is left out: each path has a list of its own.
    """
    lists, nars = dict[str, list[rules.KeptOutput]](), dict[Digest, bytes]()
    for item in listed_at(store, rules.NEWEST_TAG):
        with suppress(InputError):
            kept = rules.read_entry(item, None, f"{store}:{rules.NEWEST_TAG}, {item.digest}")
            lists.setdefault(kept.path.hash_part, []).append(kept)
            if (blob := rules.nar_within(item, kept)) is not None:
                nars[kept.nar.digest] = blob
    return Newest({part: Listed(rules.newest_first(found)) for part, found in lists.items()}, nars)


def put_newest(store: ImageStore, commit: str, entries: Iterable[Descriptor]) -> None:
    """Have that find *entries*, and what other jobs and systems listed of the same *commit*.

    It is read anew, after ``check_rewritable``: others may write it while NARs are sent.
    """
    there = store.get_manifest(rules.NEWEST_TAG, writing=True)
    before = index_members(there, f"{store}:{rules.NEWEST_TAG}")
    about = Index.parse(there.body, rules.NEWEST_TAG).annotations if there else {}
    others = before if about.get(rules.NEWEST_COMMIT) == commit else ()
    after = Index(
        rules.newest_of((*entries, *others), before), {rules.NEWEST_COMMIT: commit}
    ).dump()
    if there is None or after != there.body:
        store.put_manifest(after, MediaType.INDEX, rules.NEWEST_TAG)


def check_rewritable(store: ImageStore) -> None:
    """Raise ``CouldNotCheck`` where tags cannot be moved, as lists will be; ask before signing.

    Of all lists it writes again the one that proves nothing, with the same members.
    """
    there = store.get_manifest(rules.NEWEST_TAG, writing=True)
    if index_members(there, f"{store}:{rules.NEWEST_TAG}") and there is not None:
        again = there.body.rstrip(b"\n") if there.body.endswith(b"\n") else there.body + b"\n"
        with tags_that_move():
            store.put_manifest(again, MediaType.INDEX, rules.NEWEST_TAG)


def forget_newest(store: ImageStore) -> None:
    """Have that find nothing."""
    if listed_at(store, rules.NEWEST_TAG, writing=True):
        store.put_manifest(Index(()).dump(), MediaType.INDEX, rules.NEWEST_TAG)


def put_config(store: ImageStore) -> None:
    """Store the empty config that every kept output's manifest names."""
    put_bytes(store, MediaType.EMPTY, EMPTY)


def keep(store: ImageStore, *outputs: rules.KeptOutput, jobs: int = 1) -> tuple[Descriptor, ...]:
    """List *outputs*, whose blobs are in *store*, each under its path, *jobs* at once.

    Return their entries, in the same order.

    Each manifest first gets a tag that is its builder's alone: by it others find what they might
    have overwritten. ``CouldNotCheck`` where others overwrite a list again and again.
    """
    documents: list[NamedDocument] = []
    entries: dict[str, list[Descriptor]] = {}
    found: list[Descriptor] = []
    for kept in outputs:
        manifest = kept.manifest(CONFIG).dump()
        documents.append((manifest, MediaType.MANIFEST, rules.builders_tag(kept)))
        found.append(rules.entry_of(manifest, kept))
        entries.setdefault(rules.tag_of(kept.path.hash_part), []).append(found[-1])
    with tags_that_move():
        store.put_manifests(documents, jobs)
        ensure(store, entries, jobs)
    return tuple(found)


@contextmanager
def tags_that_move() -> Iterator[None]:
    """Say of a registry whose tags cannot be overwritten what to do about it."""
    try:
        yield
    except NotTaken as error:
        hint = "builders and clean write a path's list again: exempt the tags out-* from being "
        hint += "immutable, or keep outputs in a repository where tags can be overwritten"
        raise NotTaken(error.message, hint=hint) from error


def ensure(store: ImageStore, entries: Mapping[str, Sequence[Descriptor]], jobs: int) -> None:
    """See that the list at each tag names its *entries*, whoever else writes there meanwhile.

    Registries know no compare-and-swap: who read a list before we wrote it may overwrite it. So who
    wrote one looks for what builders' own tags name, and adds what it lacks: whoever writes last
    leaves it whole. Of one builder that is the newest entry.
    """
    waiting, others = dict(entries), dict[str, list[Descriptor]]()
    for _ in range(_TURNS):
        edits = {
            tag: partial(_added, f"{store}:{tag}", new, others.get(tag, ()))
            for tag, new in waiting.items()
        }
        written = store.edit_indexes(edits, jobs)
        if not written or isinstance(store, LayoutStore):  # which lets one write at a time
            return
        waiting = {tag: new for tag, new in waiting.items() if tag in written}
        others = {}
        for tag, _kept, entry in builders_entries(store, waiting, jobs, []):
            others.setdefault(tag.partition(".")[0], []).append(entry)
    where = f"{store}:{min(waiting)}"
    raise CouldNotCheck(
        f"{where} is being rewritten by others; what belongs there is pushed, but not listed",
        hint="run the same command again",
    )


def builders_entries(
    store: ImageStore, lists: Collection[str], jobs: int, troubles: list[str]
) -> Iterator[tuple[str, rules.KeptOutput, Descriptor]]:
    """Yield what builders' own tags name beside *lists*, each with its tag and how it is listed.

    What cannot be read goes into *troubles*.
    """
    own = store.tags_with([f"{tag}." for tag in lists], jobs) if lists else ()
    for tag, fetched in zip(own, in_parallel(store.get_manifest, own, jobs), strict=True):
        if fetched is None or fetched.descriptor.media_type != MediaType.MANIFEST:
            continue
        where, hash_part = f"{store}:{tag}", rules.hash_part_of(tag.partition(".")[0])
        try:
            said = Manifest.parse(fetched.body, where).annotations.get(rules.ANNOTATION, "")
            kept = rules.KeptOutput.parse(said.encode(), where)
            entry = rules.entry_of(fetched.body, kept)
            rules.read_entry(entry, hash_part, where)
        except NixSeedError as error:
            troubles.append(error.message)
        else:
            yield tag, kept, entry


def _added(
    where: str,
    new: Sequence[Descriptor],
    others: Sequence[Descriptor],
    present: tuple[Descriptor, ...],
) -> tuple[Descriptor, ...]:
    """Return *present* with what is *new*, and with what *others* listed, where there is room."""
    there = {item.digest: item for item in present}
    missing = {item.digest: item for item in new if item.digest not in there}
    room = rules.MOST_KEPT - len(there) - len(missing)
    if missing and room < 0:
        raise CouldNotCheck(
            f"{where} lists {len(there)} outputs already, the most there are",
            hint="remove old ones: nix-seed outputs clean",
        )
    lost = [item for item in others if item.digest not in there and item.digest not in missing]
    missing |= {item.digest: item for item in lost[: max(room, 0)]}
    if not missing:
        return present
    return tuple(sorted((*there.values(), *missing.values()), key=lambda item: item.digest))


def listed_at(store: ImageStore, tag: str, *, writing: bool = False) -> tuple[Descriptor, ...]:
    """Return what the list at *tag* names; ``CheckedFalse`` for what is no list."""
    return index_members(store.get_manifest(tag, writing=writing), f"{store}:{tag}")
