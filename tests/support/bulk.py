"""Many releases at once: what promoting them one by one writes, and how it is laid out, in bulk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from nix_seed.core.digests import Digest, NarHash
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import (
    BUILD_TYPE,
    PAYLOAD_TYPE,
    PromotionPredicate,
    promotion_statement,
)
from nix_seed.formats.oci.manifest import Descriptor, Index, MediaType, fallback_tag
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.formats.tlog.entry import HashedRekord, LogEntry
from nix_seed.formats.tlog.merkle import leaf_hash
from nix_seed.image.index import prepare_index
from nix_seed.logs.rules.entry import logged_signature
from nix_seed.registry.layout import REF_NAME
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.open import Stores
from nix_seed.release.promote import Promoted
from nix_seed.release.records import attach_documents, attach_record
from nix_seed.release.rules.record import Record, RecordSignature
from nix_seed.release.rules.tree import Evidence, Release, Vote, build_release
from nix_seed.trust.attestations import commit_subject, list_bundle
from nix_seed.trust.rules.policy import LoggedAt
from nix_seed.trust.sign import Signed
from support.audits import Ledger, commit


@dataclass
class _Pile(LayoutStore):
    """A layout whose lists are written once, at the end: each by itself would be quadratic."""

    under: LayoutStore
    lists: dict[Digest, dict[Digest, Descriptor]] = field(default_factory=dict)
    tags: dict[str, tuple[Descriptor, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.under._layout)

    def attach(self, body: bytes) -> Descriptor:
        from nix_seed.registry.store import referrer_entry

        entry, subject = referrer_entry(body)
        self._blob(entry.digest, body)
        self.lists.setdefault(subject, {})[entry.digest] = entry
        return entry

    def take_blob(self, blob: Descriptor, source: object) -> bool:
        from nix_seed.registry.store import Held

        self._blob(blob.digest, b"".join(source(Held())))  # type: ignore[operator]
        return True

    def _blob(self, digest: Digest, body: bytes) -> None:
        path = self._layout.blob_path(digest)
        if not path.exists():
            path.write_bytes(body)

    def write(self) -> None:
        """Write every list and tag."""
        named = dict(self.tags)
        for subject, listed in self.lists.items():
            there = {each.digest: each for each in self._layout.referrers(subject)}
            merged = there | listed
            body = Index(tuple(merged[each] for each in sorted(merged))).dump()
            named[fallback_tag(subject)] = (
                Descriptor(MediaType.INDEX, Digest.of(body), len(body)),
                body,
            )
        found = []
        for tag, (about, body) in named.items():
            self._blob(about.digest, body)
            found.append(replace(about, annotations={REF_NAME: tag}))
        rest = [
            e for e in self._layout.index().manifests if e.annotations.get(REF_NAME) not in named
        ]
        text = Index(tuple(sorted((*rest, *found), key=lambda e: e.annotations[REF_NAME]))).dump()
        path = self._layout.directory / "index.json"
        path.unlink()
        path.write_bytes(text)


def bulk(ledger: Ledger, number: int) -> None:
    """Add *number* releases to *ledger*, one after another, each attested by alice and bob."""
    pile = _Pile(ledger.layout)
    at = parse_reference(ledger.repository)
    images = list(ledger.images.values())
    ready = prepare_index(Stores(), at, [at.at(each.descriptor.digest) for each in images])
    pile.tags["latest"] = (Descriptor(MediaType.INDEX, ready.digest, len(ready.body)), ready.body)
    first = len(ledger.done) + 1
    numbers = range(first, first + number)
    builds = [_attest(ledger, each) for each in numbers]
    bundles = iter(_logged(ledger, [signed for some in builds for signed in some]))
    made = []
    for each in numbers:
        mine = [next(bundles) for _ in range(2 * len(images))]
        for bundle in mine:
            list_bundle(pile, commit_subject(commit(each)), bundle.dump(), BUILD_TYPE)
        made.append(_record(ledger, each, mine, ready.digest))
        pile.tags[str(commit(each))] = pile.tags["latest"]
    records = _logged(ledger, [signed for *_, signed in made])
    for (release, evidence, predicate, _), bundle in zip(made, records, strict=True):
        digest = Digest.of(bundle.envelope.payload)
        attach_documents(pile, digest, release, evidence)
        attach_record(pile, predicate, len(ready.body), [bundle.dump()])
    pile.write()


def _attest(ledger: Ledger, number: int) -> list[Signed]:
    found = []
    for image in ledger.images.values():
        for name in ("alice", "bob"):
            said = ledger.says(name, image)
            source = replace(said.source, commit=commit(number))
            found.append(ledger.sign(replace(said, source=source)))
    return found


def _logged(ledger: Ledger, signed: list[Signed]) -> Iterator[Bundle]:
    bodies = [HashedRekord.of(logged_signature(e.envelope, e.verifier)).dump() for e in signed]
    for each, done in zip(signed, ledger.log.append_bodies(bodies), strict=True):
        yield each.logged((done.entry.to_json(),))


def _record(
    ledger: Ledger, number: int, bundles: list[Bundle], index: Digest
) -> tuple[Release, Evidence, PromotionPredicate, Signed]:
    about = {
        system: (NarHash(image.spec.nar_hash.hex), image.descriptor.digest)
        for system, image in ledger.images.items()
    }
    release = build_release(commit(number), about)
    votes = [_vote(bundle) for bundle in bundles]
    evidence = Evidence(release, tuple(sorted(votes)))
    predicate = PromotionPredicate(
        repository=ledger.head["source"].strip('"'),
        commit=commit(number),
        root=release.root,
        size=release.head.size,
        index=index,
        policy=Digest.of(ledger.policy().encode()),
        epoch=int(ledger.head["epoch"]),
        evidence=evidence.digest,
        previous=(ledger.done[-1].record.digest,) if ledger.done else (),
    )
    payload = promotion_statement(predicate).dump()
    signatures: tuple[RecordSignature, ...] = ()
    record = Record(Digest.of(payload), payload, predicate, signatures)
    ledger.done.append(Promoted("promoted", record, release, 0, (), ()))
    return release, evidence, predicate, ledger.keys["rita"].sign(PAYLOAD_TYPE, payload)


def _vote(bundle: Bundle) -> Vote:
    from nix_seed.formats.intoto.statement import Statement, check_build

    said = check_build(Statement.parse(bundle.envelope.payload, "it"), "it")
    entry = LogEntry.from_json(bundle.tlog_entries[0], "an entry")
    at = LoggedAt("log", entry.index, Digest(leaf_hash(entry.body).hex()))
    return Vote(said.system, said.builder, Digest.of(bundle.envelope.pae), (at,))
