"""Ledgers to be audited, and everything that a stolen key or a bad registry can do to one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from nix_seed.audit.read import LedgerCopy, read_copies
from nix_seed.core.digests import Digest, NarHash
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    Commit,
    PromotionPredicate,
    promotion_statement,
)
from nix_seed.formats.oci.manifest import About, Index, MediaType, fallback_tag
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.image.index import prepare_index, publish_index
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.open import Stores
from nix_seed.release.promote import Promoted
from nix_seed.release.records import attach_documents, attach_record
from nix_seed.release.rules.tree import Evidence, Vote, build_release
from support.releases import Ended, ReleaseWorld
from support.trust import MadeImage


def commit(number: int) -> Commit:
    return Commit(f"{number:040x}")


@dataclass(frozen=True)
class Answer:
    """What ``nix-seed audit --json`` said."""

    code: int
    report: dict[str, Any]
    printed: str

    def found(self, *severities: str) -> list[tuple[str, str]]:
        """Kind and severity of each finding, the notices left out unless asked for."""
        wanted = severities or ("alarm", "could not check", "warning")
        return [
            (each["kind"], each["severity"])
            for each in self.report["findings"]
            if each["severity"] in wanted
        ]

    def words(self, kind: str) -> list[str]:
        return [each["words"] for each in self.report["findings"] if each["kind"] == kind]


class Ledger(ReleaseWorld):
    """A world whose releases 1, 2, … are promoted one after another."""

    def __init__(self, root: Path, releases: int = 0) -> None:
        super().__init__(root)
        self.done: list[Promoted] = []
        for _ in range(releases):
            self.release()

    @classmethod
    def fresh(cls, root: Path, releases: int = 3) -> Self:
        """Return a new ledger below *root*, with the keys that all fresh ones have."""
        ledger = super().fresh(root)
        for _ in range(releases):
            ledger.release()
        return ledger

    def release(self, who: str = "rita") -> Promoted:
        """Attest and promote the next commit."""
        following = commit(len(self.done) + 1)
        self.attest_all(commit=following)
        self.done.append(self.promote(who, "latest", commit=following))
        return self.done[-1]

    def said(self, number: int) -> PromotionPredicate:
        """What the record of release *number* says."""
        return self.done[number - 1].record.predicate

    def digest(self, number: int) -> Digest:
        return self.done[number - 1].record.digest

    @property
    def layout(self) -> LayoutStore:
        assert isinstance(self.store, LayoutStore)
        return self.store

    def audit(self, *arguments: str, state: str | None = "auditor") -> Answer:
        """Run ``nix-seed audit --json`` on the ledger."""
        policy = str(self.write_policy())
        where = ["--no-state"] if state is None else ["--state", str(self.root / "state" / state)]
        copies = [] if "--from" in arguments else ["--from", self.repository]
        ended = self.run("audit", *copies, "--policy", policy, *where, "--json", *arguments)
        return _answer(ended)

    def forge(
        self,
        number: int,
        *who: str,
        images: Iterable[MadeImage] | None = None,
        votes: Callable[[tuple[Vote, ...]], Iterable[Vote]] = tuple,
        log: EmbeddedLog | None = None,
        to: LayoutStore | None = None,
        logged: bool = True,
        listed: bool = True,
        documents: bool = True,
        tags: Iterable[str] = (),
        **changes: Any,
    ) -> Digest:
        """Do by hand what promoting release *number* once more, with *changes*, would have done."""
        chosen = list(images or self.images.values())
        about = {
            each.spec.system: (NarHash(each.spec.nar_hash.hex), each.descriptor.digest)
            for each in chosen
        }
        release = build_release(commit(number), about)
        at = parse_reference(self.repository)
        source = self.head["source"].strip('"')
        of = [at.at(each.descriptor.digest) for each in chosen]
        ready = prepare_index(Stores(), at, of, about=About(source, str(commit(number))))
        evidence = Evidence(release, tuple(sorted(votes(self._votes(number)))))
        predicate = replace(
            PromotionPredicate(
                repository=source,
                commit=commit(number),
                root=release.root,
                size=release.head.size,
                index=ready.digest,
                policy=Digest.of(self.policy().encode()),
                epoch=int(self.head["epoch"]),
                evidence=evidence.digest,
                previous=(),
            ),
            **changes,
        )
        payload = promotion_statement(predicate).dump()
        bundles = []
        for name in who or ("rita",):
            signed = self.keys[name].sign(PAYLOAD_TYPE, payload)
            bundle = self.bundle(signed, *([log] if log else [])) if logged else signed.bundle
            bundles.append(bundle.dump())
        digest = Digest.of(payload)
        store = to or self.layout
        if documents:
            attach_documents(store, digest, release, evidence)
        if listed:
            attach_record(store, predicate, len(ready.body), bundles)
            publish_index(Stores(), at, ready, tags=tuple(tags))
        return digest

    def _votes(self, number: int) -> tuple[Vote, ...]:
        from nix_seed.release.records import find_evidence

        if number > len(self.done):
            return ()
        return find_evidence([self.store], self.done[number - 1].record).votes

    def copy(self, name: str) -> LayoutStore:
        """Return a copy of the ledger, to be changed."""
        target = self.root / name
        shutil.copytree(self.directory, target)
        return LayoutStore(Layout.open(target))

    def add_log(self, name: str) -> EmbeddedLog:
        """Add a second log to the policy."""
        log = EmbeddedLog.create(self.root / name, f"{name}.example")
        self.logs.append(
            {
                "id": f'"{name}"',
                "kind": '"tiles"',
                "origin": f'"{name}.example"',
                "key": f'"{log.trusted.key}"',
                "url": f'"{name}"',
            }
        )
        return log


def unlist(store: LayoutStore, subject: Digest, keep: Callable[[bytes], bool]) -> int:
    """Take from the list of *subject* whatever *keep* does not want; return how many went.

    *keep* is given the bytes of the document or bundle.
    """
    there = LedgerCopy(str(store), parse_reference(str(store)), store, store.list_tags())
    texts: dict[Digest, bytes] = {}
    for _, _, found in read_copies([there], [subject]):
        texts |= {Digest.of(each.text): each.text for each in found.attestations}
        texts |= {Digest.of(each.text): each.text for each in found.documents}
    kept, gone = [], 0
    for item in store.referrers(subject):
        fetched = store.get_manifest(item.digest)
        assert fetched is not None
        layer = Digest.parse(json.loads(fetched.body)["layers"][0]["digest"])
        if keep(texts[layer]):
            kept.append(item)
        else:
            gone += 1
    store.put_manifest(Index(tuple(kept)).dump(), MediaType.INDEX, fallback_tag(subject))
    return gone


def untag(store: LayoutStore, *tags: str) -> None:
    """Remove tags from a layout."""
    path = Path(str(store).removeprefix("oci:")) / "index.json"
    value = json.loads(path.read_bytes())
    name = "org.opencontainers.image.ref.name"
    value["manifests"] = [
        each for each in value["manifests"] if each.get("annotations", {}).get(name) not in tags
    ]
    path.unlink()
    path.write_text(json.dumps(value))


def dangle(store: LayoutStore, tag: str) -> None:
    """Have *tag* name what is not there."""
    untag(store, tag)
    path = Path(str(store).removeprefix("oci:")) / "index.json"
    value = json.loads(path.read_bytes())
    nothing = {"mediaType": MediaType.INDEX, "digest": f"sha256:{'ab' * 32}", "size": 1}
    value["manifests"].append(nothing | {"annotations": {"org.opencontainers.image.ref.name": tag}})
    path.unlink()
    path.write_text(json.dumps(value))


def drop_record(store: LayoutStore, said: PromotionPredicate, digest: Digest) -> None:
    """Remove a record from a copy: wherever it is listed, and what lies beside it."""
    from nix_seed.release.records import record_subjects

    payload = promotion_statement(said).dump()
    for subject in record_subjects(said, 1):
        unlist(store, subject.digest, lambda text: not _is_of(text, payload))
    untag(store, fallback_tag(digest), str(said.commit))


def _is_of(text: bytes, payload: bytes) -> bool:
    import base64

    return base64.b64encode(payload) in text


def _answer(ended: Ended) -> Answer:
    start = ended.printed.find("{")
    assert start >= 0, ended.printed
    report, _ = json.JSONDecoder().raw_decode(ended.printed[start:])
    assert report["exitCode"] == ended.code
    return Answer(ended.code, report, ended.printed)
