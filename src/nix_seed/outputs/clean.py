"""Takes outputs off their lists that nobody has pushed for long, and their blobs off a disk.

A job that runs meanwhile loses nothing: what it pushes is younger than anything that is dropped, it
looks for each blob once more after it has listed it, and what it asks for in vain Nix builds. A
registry knows no condition on a write, so a list may be overwritten that a job had just added to:
that job's own tag shows it, and it is listed again. A registry collects what no list names by
itself; on a disk that is done here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import field
from datetime import datetime, timedelta
from typing import Final

from nix_seed.core.declared import time_text
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, InputError, NixSeedError
from nix_seed.core.parallel import in_parallel
from nix_seed.core.values import dataclass
from nix_seed.formats.intoto.statement import Commit, is_commit
from nix_seed.formats.nix.store_path import HASH_PART, StorePath
from nix_seed.formats.oci import manifest as oci
from nix_seed.outputs.kept import builders_entries, ensure, forget_newest, listed_at, tags_that_move
from nix_seed.outputs.rules.kept import TAG_PREFIX, KeptOutput, read_entry
from nix_seed.outputs.rules.statement import PREDICATE_TYPE, outputs_subject
from nix_seed.outputs.words import unverified_outputs
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import (
    ImageStore,
    IndexEdit,
    NamedDocument,
    is_bundle,
    read_referrer,
    without,
)
from nix_seed.trust.attestations import PREDICATE, Attestation, gather

_TAG: Final = re.compile(rf"{TAG_PREFIX}({HASH_PART})\Z")
_AGE: Final = re.compile(r"([1-9][0-9]{0,4})([dhw])\Z")
_REQUESTS: Final = 8  # at once
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class CleanedOutputs:
    """How many outputs were *dropped* and *kept*, and the bytes *freed* on this disk."""

    dropped: int
    kept: int
    freed: int
    troubles: tuple[str, ...]


def parse_age(text: str) -> timedelta:
    """Read ``30d``, ``12h`` or ``8w``."""
    found = _AGE.match(text)
    if found is None:
        raise InputError(f"{text!r} is no age", hint="write 30d, 12h or 8w")
    return int(found[1]) * _UNITS[found[2]]


def clean_outputs(
    store: ImageStore, oldest: datetime, commits: Collection[str] = frozenset()
) -> CleanedOutputs:
    """Drop what was pushed last before *oldest*, but for what is said of one of *commits*.

    A list that cannot be read stays as it is. Raises where what is said of *commits* cannot be.
    """
    limit, said = time_text(oldest), set(_said_of(store, commits))
    tags = {tag: found[1] for tag in store.list_tags() if (found := _TAG.match(tag))}

    def old(kept: KeptOutput) -> bool:
        ours = kept.commit in commits or (kept.path, kept.nar_hash) in said
        return kept.pushed < limit and not ours

    first = _drop(store, tags, old)
    if first.lists:
        with suppress(NixSeedError):
            forget_newest(store)
    restored = _restore(store, first, old)
    sound, freed = not first.troubles, 0
    if sound:
        first.gone |= set(_forget(store, first, commits, limit))
    if sound and first.gone and isinstance(store, LayoutStore):
        # Once more, for what jobs have listed meanwhile.
        used = _drop(store, tags, lambda _: False).used
        freed = sum(store.remove_blob(digest) for digest in sorted(first.gone - used))
        # What was listed in this very moment is listed no more, so that it is sent again.
        _drop(store, tags, lambda kept: not store.has_blob(kept.nar.digest))
    kept = first.kept + restored
    return CleanedOutputs(first.dropped, kept, freed, tuple(first.troubles))


def _said_of(store: ImageStore, commits: Collection[str]) -> Iterator[tuple[StorePath, NarHash]]:
    """Yield what statements, which are not verified, say that *commits* built.

    What a commit left as it was is listed as an earlier one's.
    """
    found = gather([store], [outputs_subject(Commit(each)).digest for each in sorted(commits)])
    for trouble in found.troubles:
        raise trouble
    for each in found.attestations:
        with suppress(InputError):
            for fact in unverified_outputs(each).outputs:
                yield fact.path, fact.nar_hash


@dataclass(slots=True)
class _Dropped:
    """How many entries were *dropped* and *kept*, and the blobs of either.

    *lists* are those that were written, each with its path's hash. *unsaid* are bundles that spoke
    of what was dropped, of *commits*; *said* are still needed.
    """

    dropped: int = 0
    kept: int = 0
    lists: dict[str, str] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)
    unsaid: set[Digest] = field(default_factory=set)
    said: set[Digest] = field(default_factory=set)
    gone: set[Digest] = field(default_factory=set)
    used: set[Digest] = field(default_factory=set)
    troubles: list[str] = field(default_factory=list)


def _drop(
    store: ImageStore, tags: Mapping[str, str], unwanted: Callable[[KeptOutput], bool]
) -> _Dropped:
    """Take what is *unwanted* off the lists at *tags*, each of the hash part beside it."""
    done = _Dropped()
    edits: dict[str, IndexEdit] = {}
    for tag, hash_part in tags.items():
        try:
            entries = listed_at(store, tag)
            read = [(item, read_entry(item, hash_part, f"{store}:{tag}")) for item in entries]
        except NixSeedError as error:
            done.troubles.append(error.message)
            continue
        goes = [each for each in read if unwanted(each[1])]
        stays = [each for each in read if each not in goes]
        if goes:
            edits[tag] = without({item.digest for item, _ in goes})
            done.lists[tag] = hash_part
        done.dropped += len(goes)
        done.kept += len(stays)
        done.commits |= {kept.commit for _, kept in goes}
        done.unsaid |= {bundle.digest for _, kept in goes for bundle in kept.bundles}
        done.said |= {bundle.digest for _, kept in stays for bundle in kept.bundles}
        # What an entry alone keeps: bundles speak of others, too.
        done.gone |= {digest for item, kept in goes for digest in (item.digest, kept.nar.digest)}
        done.used |= {digest for item, kept in stays for digest in (item.digest, kept.nar.digest)}
        done.used |= done.said
    with tags_that_move():
        store.edit_indexes(edits, _REQUESTS)
    return done


def _restore(store: ImageStore, done: _Dropped, unwanted: Callable[[KeptOutput], bool]) -> int:
    """List again what another job listed just before a list was overwritten; return how many.

    A tag whose manifest is *unwanted* gets an empty index: few registries let a client delete one.
    """
    entries: dict[str, list[oci.Descriptor]] = {}
    dropped = list[NamedDocument]()
    for tag, kept, entry in builders_entries(store, done.lists, _REQUESTS, done.troubles):
        if unwanted(kept):
            dropped.append((oci.Index(()).dump(), oci.MediaType.INDEX, tag))
        else:
            entries.setdefault(tag.partition(".")[0], []).append(entry)
    store.put_manifests(dropped, _REQUESTS)
    found = 0
    for listed, those in entries.items():
        try:  # a list that cannot be read must not hide what others lack
            there = {each.digest for each in listed_at(store, listed)}
            lost = [entry for entry in those if entry.digest not in there]
            if lost:
                ensure(store, {listed: lost}, _REQUESTS)
            found += len(lost)
        except NixSeedError as error:
            done.troubles.append(error.message)
    return found


def _forget(
    store: ImageStore, done: _Dropped, commits: Collection[str], limit: str
) -> Iterator[Digest]:
    """Take statements off their commit's list that speak of nothing that is kept.

    Those on what was dropped, and older ones than *limit* that nothing which is kept names, but for
    what is said of *commits*: of a commit that changed nothing there is but a statement. Where a
    registry lists referrers by itself, it does not say of which commits. Yield their digests, and
    those of their bundles.
    """
    named = {outputs_subject(Commit(each)).digest for each in done.commits if is_commit(each)}
    tags = (tag.removesuffix(".nix-seed") for tag in store.list_tags())
    named |= {each for each in map(oci.subject_listed, tags) if each is not None}
    subjects = sorted(named - {outputs_subject(Commit(each)).digest for each in commits})

    def forget(subject: Digest) -> list[Digest]:
        try:
            goes = dict(_silent(store, subject, done, limit))
            if goes:
                store.detach(subject, goes)
        except NixSeedError as error:
            done.troubles.append(error.message)
            return []
        return [*goes, *goes.values()]

    for gone in in_parallel(forget, subjects, _REQUESTS):
        yield from gone


def _silent(
    store: ImageStore, subject: Digest, done: _Dropped, limit: str
) -> Iterator[tuple[Digest, Digest]]:
    """Yield the manifests of statements on *subject* to be dropped, each with its bundle."""
    for item in store.referrers(subject):
        # What else may lie beside a digest is not read.
        if item.annotations.get(PREDICATE) != PREDICATE_TYPE:
            continue
        with suppress(InputError, CheckedFalse):  # what is no statement of ours stays
            found = read_referrer(store, item, subject, is_bundle)
            if found is None or (bundle := Digest.of(found.text)) in done.said:
                continue
            said = unverified_outputs(Attestation(found.place, found.text))
            ours = outputs_subject(said.commit).digest == subject
            if ours and (bundle in done.unsaid or said.finished_on < limit):
                yield item.digest, bundle
