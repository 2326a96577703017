"""A world in which a commit is released, and what an attacker with some of its keys can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from attacks.cases import enter
from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    PROMOTION_TYPE,
    Commit,
    PromotionPredicate,
    Source,
    promotion_statement,
)
from nix_seed.formats.oci.manifest import (
    ANNOTATION_NAR_HASH,
    ANNOTATION_SYSTEM,
    About,
    Descriptor,
    Index,
    MediaType,
    fallback_tag,
    platform_of,
)
from nix_seed.release.records import (
    EVIDENCE_TYPE,
    MEMBER_TYPE,
    attach_documents,
    attach_record,
    record_subject,
)
from nix_seed.release.rules.tree import Evidence, Leaf, Release, build_release
from nix_seed.trust.attestations import list_bundle, list_document
from support.releases import ARM, ReleaseWorld
from support.remembered import remembered
from support.trust import COMMIT, SOURCE, SYSTEM, TREES, MadeImage, make_image

__all__ = ["Forged", "PromotedWorld", "promotion_case"]

RISCV = "riscv64-linux"


@dataclass(frozen=True, slots=True)
class Forged:
    """What somebody would have promoted: a release, its index, its evidence, its predicate."""

    release: Release
    index: Descriptor
    evidence: Evidence
    predicate: PromotionPredicate

    @property
    def payload(self) -> bytes:
        """The statement."""
        return promotion_statement(self.predicate).dump()

    @property
    def digest(self) -> Digest:
        """The record's name."""
        return Digest.of(self.payload)


class PromotedWorld(ReleaseWorld):
    """Asked by its commit, unless *question* says otherwise."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.verb = "verify"
        self.question = [str(COMMIT), "--from", self.repository]

    def at(self, root: Path) -> Self:
        """Return this world where its files have been copied to *root*."""
        mine = super().at(root)
        mine.question = [str(COMMIT), "--from", mine.repository]
        return mine

    def command(self) -> list[str]:
        """The command line."""
        policy, state = str(self.write_policy()), str(self.root / "state/consumer")
        return [self.verb, *self.question, "--policy", policy, "--state", state]

    def ask(self, name: str, *more: str) -> None:
        """Ask about what the tag or digest *name* names."""
        sign = "@" if name.startswith("sha256:") else ":"
        self.question = [f"{self.repository}{sign}{name}", *more]

    def ask_to_promote(self, who: str, *more: str) -> None:
        """Have *who* promote the commit, by the command."""
        self.verb = "promote"
        key = str(self.root / f"{who}.key")
        self.question = [str(COMMIT), "--to", self.repository, "--key", key, *more]

    @remembered
    def honest(self, *tags: str, commit: Commit = COMMIT) -> Forged:
        """Release the commit as it should be."""
        self.attest_all(commit=commit)
        done = self.promote("rita", *tags, commit=commit)
        said = done.record.predicate
        index = Descriptor(MediaType.INDEX, said.index, 1)
        return Forged(done.release, index, Evidence(done.release, ()), said)

    def planned(
        self, images: Mapping[str, MadeImage] | None = None, *, commit: Commit = COMMIT, **said: Any
    ) -> Forged:
        """What one would promote as *images* (the honest ones); *said* changes the predicate."""
        chosen = images or self.images
        release = build_release(
            commit, {s: (i.spec.nar_hash, i.descriptor.digest) for s, i in chosen.items()}
        )
        index = self.index([chosen[system] for system in sorted(chosen)], commit=commit)
        evidence = Evidence(release, ())
        policy = Digest.of(self.policy().encode())
        predicate = PromotionPredicate(
            repository=SOURCE,
            commit=commit,
            root=release.root,
            size=release.head.size,
            index=index.digest,
            policy=policy,
            epoch=int(self.head["epoch"]),
            evidence=evidence.digest,
            previous=(),
        )
        return Forged(release, index, evidence, replace(predicate, **said))

    def publish_record(self, forged: Forged, *names: str, log: bool = True) -> Forged:
        """Sign as *names*, log, list, and put each proof and the evidence beside it."""
        self.record(forged.predicate, *names, log=log)
        attach_documents(self.store, forged.digest, forged.release, forged.evidence)
        return forged

    def publish_statement(self, forged: Forged, text: bytes, *names: str) -> None:
        """As ``publish_record``, but over *text*, whatever it says."""
        for name in names:
            bundle = self.bundle(self.keys[name].sign(PAYLOAD_TYPE, text)).dump()
            attach_record(self.store, forged.predicate, 1, [bundle])
        attach_documents(self.store, Digest.of(text), forged.release, forged.evidence)

    def index(self, images: Iterable[MadeImage], *tags: str, commit: Commit = COMMIT) -> Descriptor:
        """Store an index of *images*, just as the product writes one."""
        entries = [_entry(image) for image in images]
        said = About(SOURCE, str(commit)).annotations()
        return self.raw_index(Index(tuple(entries), said), *tags)

    def raw_index(self, index: Index, *tags: str) -> Descriptor:
        """Store *index*."""
        stored = self.store.put_manifest(index.dump(), MediaType.INDEX)
        for tag in tags:
            self.store.put_manifest(index.dump(), MediaType.INDEX, tag)
        return stored

    def hide(self, subject: Digest) -> None:
        """Have nothing listed under *subject* any more."""
        self.store.put_manifest(Index(()).dump(), MediaType.INDEX, fallback_tag(subject))

    def listed(self, subject: Digest) -> Index:
        """What is listed under *subject*."""
        found = self.store.get_manifest(fallback_tag(subject))
        assert found is not None
        return Index.parse(found.body, "x")

    def replace_proof(self, forged: Forged, text: bytes, system: str = SYSTEM) -> None:
        """Let *text* be all that lies beside the record as the proof of *system*."""
        self.hide(forged.digest)
        self.add_proof(forged, text, system)
        self.question += ["--system", system]

    def add_proof(self, forged: Forged, text: bytes, system: str = SYSTEM) -> None:
        """Put *text* beside the record as a proof of *system*."""
        where = {ANNOTATION_SYSTEM: system}
        list_document(self.store, record_subject(forged.digest), text, MEMBER_TYPE, where)

    def replace_evidence(self, forged: Forged, text: bytes) -> None:
        """Put *text* beside the record as its evidence."""
        list_document(self.store, record_subject(forged.digest), text, EVIDENCE_TYPE)

    def list_under(self, subject: Descriptor, forged: Forged, *names: str) -> None:
        """List a record somewhere else than it belongs."""
        for name in names:
            bundle = self.bundle(self.keys[name].sign(PAYLOAD_TYPE, forged.payload)).dump()
            list_bundle(self.store, subject, bundle, PROMOTION_TYPE)

    @remembered
    def attest(self, image: MadeImage, *names: str, commit: Commit = COMMIT) -> None:
        """Have *names* say that *image* is what they built from *commit*."""
        for name in names:
            source = Source(SOURCE, commit, Digest.of(b"flake.lock"))
            self.attach(
                self.bundle(self.sign(self.says(name, image, source=source))), image, commit
            )

    def three_systems(self) -> Mapping[str, MadeImage]:
        """Have the policy demand a third system, and all images attested."""
        third = make_image(self.store, self.root / "third", "third", TREES, RISCV)
        self.head["systems"] = f'["{ARM}", "{RISCV}", "{SYSTEM}"]'
        self.attest_all()
        self.attest(third, "alice", "bob")
        return {**self.images, RISCV: third}

    @property
    def backdoored(self) -> Mapping[str, MadeImage]:
        """The images of a release with a backdoor for one system."""
        return {SYSTEM: self.other, ARM: self.arm}

    def leaf(self, image: MadeImage, system: str = SYSTEM, commit: Commit = COMMIT) -> Leaf:
        """The leaf of *image*."""
        return Leaf(system, commit, image.spec.nar_hash, image.descriptor.digest)


def proof_text(leaf: Any, index: int, size: int, hashes: Sequence[bytes]) -> bytes:
    """A proof's document, of anything."""
    proof = [each.hex() for each in hashes]
    return canonical_json.dumps({"leaf": leaf, "index": index, "size": size, "proof": proof})


def promotion_case(
    code: int, reason: str
) -> Callable[[Callable[[PromotedWorld], None]], Callable[[PromotedWorld], None]]:
    """Put a function of a released world into the table."""

    def put(prepare: Callable[[PromotedWorld], None]) -> Callable[[PromotedWorld], None]:
        enter(code, reason, prepare, PromotedWorld.fresh, PromotedWorld.command)
        return prepare

    return put


def _entry(image: MadeImage) -> Descriptor:
    said = {ANNOTATION_SYSTEM: image.spec.system, ANNOTATION_NAR_HASH: str(image.spec.nar_hash)}
    platform = platform_of(image.spec.system)
    return replace(image.descriptor, annotations=said, platform=platform)
