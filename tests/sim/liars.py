"""What promoters who lie, logs that lie and a registry that adds can do to an honest release.

Each plan is done again and again, between the honest promoters' turns. None is one of a registry
that leaves out, or of a builder who dissents: these block whatever they like, as
``docs/threat-model.md`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Self

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    Commit,
    Envelope,
    PromotionPredicate,
    Statement,
    check_promotion,
    promotion_statement,
)
from nix_seed.formats.oci.manifest import ANNOTATION_SYSTEM, Index, MediaType
from nix_seed.formats.tlog.entry import Verifier
from nix_seed.formats.tlog.note import SignedCheckpoint
from nix_seed.logs.log import Entry
from nix_seed.release.records import (
    EVIDENCE_TYPE,
    MEMBER_TYPE,
    attach_documents,
    attach_record,
    find_evidence,
    record_subject,
)
from nix_seed.release.rules.tree import Evidence, build_release
from nix_seed.trust.attestations import gather, list_document, promotions
from nix_seed.trust.sign import log_signed
from sim.scene import SOURCE, SYSTEMS
from sim.strategies import Attack
from sim.transports import MemoryLog

__all__ = ["BY_LOGS", "BY_PROMOTERS", "BY_REGISTRY", "Plan"]

_HEADS = 80
"""More than the records that one can come after."""

Plan = Callable[[Attack], None]


# Promoters: what they sign, and where they say that it is logged.


def another_root(attack: Attack) -> None:
    """A backdoor, that no builder built."""
    images = attack.backdoored()
    release = build_release(attack.commit, {s: (i.nar_hash, i.digest) for s, i in images.items()})
    _falsely(attack, root=release.root)


def another_root_half_logged(attack: Attack) -> None:
    """The same, in one log too few."""
    _sign(attack, replace(_truly(attack)[0], root=Digest.of(b"another")), _too_few(attack))


def another_index(attack: Attack) -> None:
    """An index of the true images that is not the one to be published."""
    good = attack.scene.truth[attack.commit].values()
    text = Index(tuple(image.descriptor for image in good), {"an": "annotation"}).dump()
    attack.scene.store.put_manifest(text, MediaType.INDEX)
    _falsely(attack, index=Digest.of(text))


def a_system_missing(attack: Attack) -> None:
    """One system of two."""
    system, image = next(iter(attack.scene.truth[attack.commit].items()))
    release = build_release(attack.commit, {system: (image.nar_hash, image.digest)})
    _falsely(attack, root=release.root, size=1)


def after_what_is_nowhere(attack: Attack) -> None:
    """A record that comes after one that nobody has."""
    _falsely(attack, previous=(Digest.of(b"nowhere"),))


def as_if_the_first(attack: Attack) -> None:
    """A record that passes over all that were released before."""
    _falsely(attack, previous=())


def on_no_evidence(attack: Attack) -> None:
    """Evidence that is nowhere, and a document that names none."""
    _falsely(attack, evidence=Digest.of(b"nowhere"))
    said, evidence = _truly(attack)
    empty = Evidence(evidence.release, ())
    record = _sign(attack, replace(said, evidence=empty.digest))
    attach_documents(attack.scene.store, record, empty.release, empty)


def by_another_policy(attack: Attack) -> None:
    """Another policy, and another epoch of this one."""
    _falsely(attack, policy=Digest.of(b"mine"))
    _falsely(attack, epoch=9)


def of_another_repository(attack: Attack) -> None:
    """As if it were the release of a fork."""
    _falsely(attack, repository=f"{SOURCE}-fork")


def without_documents(attack: Attack) -> None:
    """The very record that is to be signed, and nothing beside it."""
    _sign(attack, _truly(attack)[0])


def without_documents_half_logged(attack: Attack) -> None:
    """The same, in one log too few."""
    _sign(attack, _truly(attack)[0], _too_few(attack))


def ever_another_record(attack: Attack) -> None:
    """Before each turn a record as good as the one begun, of a digest that is found before it."""
    said, evidence = _truly(attack)
    begun = [Digest.of(payload) for payload in _begun(attack)]
    for size in range(3, 1 << 12):
        own = replace(said, commit=attack.old, size=size, previous=())
        mine = replace(said, previous=tuple(sorted({*said.previous, _name(own)})))
        if all(_name(mine) < each for each in begun):
            break
    _sign(attack, own, 0)
    record = _sign(attack, mine, _too_few(attack))
    attach_documents(attack.scene.store, record, evidence.release, evidence)


def many_heads(attack: Attack) -> None:
    """More records that nothing comes after than one record can name, none after a release."""
    if len(_begun(attack, attack.old)) > _HEADS:
        return
    others = {Digest.of(each) for commit in attack.scene.truth for each in _begun(attack, commit)}
    said = replace(_truly(attack)[0], commit=attack.old, previous=())
    # Of digests that come before those of the releases, which are to be left out.
    sizes = (replace(said, size=size) for size in range(3, 1 << 16))
    for own in islice((own for own in sizes if _name(own) < min(others)), _HEADS):
        _sign(attack, own, 0)


def half_signatures(attack: Attack) -> None:
    """What the others began, signed in one log, and in the rest with proofs that prove nothing."""
    for payload in _begun(attack):
        good, *rest = _signed(attack, payload)
        _list(attack, payload, (good, *map(_spoiled, rest)))


def early_signatures(attack: Attack) -> None:
    """What the others began, so that it stands before its index is published."""
    for payload in _begun(attack):
        _list(attack, payload, _signed(attack, payload))


# A registry: what it lists beside what belongs there.


def strange_documents(attack: Attack) -> None:
    """Beside each record, proofs and evidence of another, and what is neither."""
    bad = {system: (i.nar_hash, i.digest) for system, i in attack.backdoored().items()}
    release = build_release(attack.commit, bad)
    store = attack.scene.store
    for payload in _begun(attack):
        record = Digest.of(payload)
        attach_documents(store, record, release, Evidence(release, ()))
        list_document(store, record_subject(record), b"[", EVIDENCE_TYPE)
        for system in SYSTEMS:
            where = {ANNOTATION_SYSTEM: system}
            list_document(store, record_subject(record), b"{}", MEMBER_TYPE, where)


def replayed_records(attack: Attack) -> None:
    """The old release's records where those of this one are looked for, and the reverse."""
    here, there = _found(attack, attack.commit), _found(attack, attack.old)
    for payload in _begun(attack):
        _list(attack, payload, there)
    for text in there:
        _list(attack, Bundle.parse(text, "a record").envelope.payload, here)


def false_bundles(attack: Attack) -> None:
    """Bundles that are none, and the true records with a stranger's or a broken signature."""
    cast = attack.scene.cast
    old = Bundle.parse(_found(attack, attack.old)[0], "a record").envelope.payload
    for payload in (*_begun(attack), old):
        strange = cast.stranger.sign(PAYLOAD_TYPE, payload).bundle
        known = next(iter(cast.promoters.values())).sign(PAYLOAD_TYPE, b"{}").bundle
        broken = replace(
            known, dsse_envelope=Envelope(PAYLOAD_TYPE, payload, known.envelope.signatures)
        )
        _list(attack, payload, (b"{", strange.dump(), known.dump(), broken.dump()))


def moved_tags(attack: Attack) -> None:
    """The commit's tag, and the newest one's, on a backdoor."""
    images = attack.backdoored()
    for image in images.values():
        image.put(attack.scene.store)
    index = Index(tuple(images[system].descriptor for system in sorted(images))).dump()
    for tag in ("latest", str(attack.commit)):
        attack.scene.store.put_manifest(index, MediaType.INDEX, tag)


# Logs: what they answer writers and readers.


class CapturedLog(MemoryLog):
    """A log that lies from now on."""

    @classmethod
    def of(cls, log: MemoryLog) -> Self:
        """Take over *log*."""
        return cls(log.trusted.id, log.key, tuple(log._bodies))


class MuteLog(CapturedLog):
    """Takes what is written, and is out of reach for who reads."""

    def append(self, envelope: Envelope, verifier: Verifier) -> Entry:
        grown = self.fork()
        entry = grown.append(envelope, verifier)
        self._bodies, self._leaves = grown._bodies, grown._leaves
        return entry

    def checkpoint(self) -> SignedCheckpoint:
        raise CouldNotCheck(f"the log {self.trusted.id} does not answer")


class FalseLog(CapturedLog):
    """Answers writers with what proves nothing, as its client is the first to notice."""

    def append(self, envelope: Envelope, verifier: Verifier) -> Entry:
        raise CheckedFalse(f"the log {self.trusted.id} answered falsely")


class ForgetfulLog(CapturedLog):
    """Proves what it took, and knows nothing of it when it is asked again."""

    def append(self, envelope: Envelope, verifier: Verifier) -> Entry:
        return self.fork().append(envelope, verifier)


def _truly(attack: Attack) -> tuple[PromotionPredicate, Evidence]:
    """Return what an honest promoter would sign as a record of its own, and on what evidence."""
    scene, commit = attack.scene.copy(), attack.commit
    scene.store.hide(commit.key)
    scene.attest(scene.cast.builders, scene.images(commit), commit)
    record = scene.promote(attack.promoters[0], commit).record
    return record.predicate, find_evidence([scene.store], record)


def _falsely(attack: Attack, **said: Any) -> None:
    """Sign what is true but for what is *said*, and put documents beside it."""
    true, evidence = _truly(attack)
    record = _sign(attack, replace(true, **said))
    attach_documents(attack.scene.store, record, evidence.release, evidence)


def _sign(attack: Attack, said: PromotionPredicate, most: int | None = None) -> Digest:
    """Have every liar sign, and *most* of the logs hold it (None: all that are there)."""
    payload = promotion_statement(said).dump()
    _list(attack, payload, _signed(attack, payload, most))
    return Digest.of(payload)


def _signed(attack: Attack, payload: bytes, most: int | None = None) -> list[bytes]:
    there = [log for log in attack.scene.logs if not log.down][:most]
    keys = [attack.scene.cast.promoters[name] for name in attack.promoters]
    signed = [key.sign(PAYLOAD_TYPE, payload) for key in keys]
    return [bundle.dump() for each in signed for bundle in log_signed(each, there)]


def _list(attack: Attack, payload: bytes, bundles: Iterable[bytes]) -> None:
    """List *bundles* wherever the record in *payload* is looked for."""
    said = check_promotion(Statement.parse(payload, "a record"), "a record")
    attach_record(attack.scene.store, said, 1, tuple(bundles))


def _begun(attack: Attack, commit: Commit | None = None) -> set[bytes]:
    """Return every record of *commit* that there is, or of the one that is to be released."""
    texts = _found(attack, commit or attack.commit)
    return {Bundle.parse(text, "a record").envelope.payload for text in texts}


def _found(attack: Attack, commit: Commit) -> list[bytes]:
    return [each.text for each in promotions(gather([attack.scene.store], [commit.key]))]


def _name(said: PromotionPredicate) -> Digest:
    return Digest.of(promotion_statement(said).dump())


def _too_few(attack: Attack) -> int:
    return attack.scene.cast.terms.needed - 1


def _spoiled(text: bytes) -> bytes:
    """Return the bundle with log entries that prove nothing."""
    bundle = Bundle.parse(text, "a bundle")
    held = bundle.verification_material
    unproved = replace(held, tlog_entries=tuple(map(_unproved, held.tlog_entries)))
    return replace(bundle, verification_material=unproved).dump()


def _unproved(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**entry, "inclusionProof": {**entry["inclusionProof"], "rootHash": "A" * 43 + "="}}


def _named(*plans: Any) -> dict[str, Any]:
    return {each.__name__.replace("_", " "): each for each in plans}


BY_PROMOTERS: Mapping[str, Plan] = _named(
    another_root,
    another_root_half_logged,
    another_index,
    a_system_missing,
    after_what_is_nowhere,
    as_if_the_first,
    on_no_evidence,
    by_another_policy,
    of_another_repository,
    without_documents,
    without_documents_half_logged,
    ever_another_record,
    many_heads,
    half_signatures,
    early_signatures,
)
BY_REGISTRY: Mapping[str, Plan] = _named(
    strange_documents, replayed_records, false_bundles, moved_tags
)
BY_LOGS: Mapping[str, type[CapturedLog]] = {
    "logs that do not answer readers": MuteLog,
    "logs that answer writers falsely": FalseLog,
    "logs that take back what they took": ForgetfulLog,
}
