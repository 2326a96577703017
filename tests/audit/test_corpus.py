"""Every way in which a ledger can be wrong, done to a real one; and what the audit says of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.bundle import Unverified
from nix_seed.formats.oci.manifest import Index, MediaType
from nix_seed.formats.tlog.entry import HashedRekord, Verifier
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.release.rules.tree import Vote
from nix_seed.release.verifiers import RootPins
from support.audits import Ledger, commit, dangle, drop_record, unlist, untag
from support.releases import ARM
from support.trust import SOURCE, SYSTEM, MadeImage

ALARM, WARNING, UNCHECKED, NOTICE = "alarm", "warning", "could not check", "notice"


def test_a_clean_ledger(ledger: Ledger) -> None:
    found = ledger.audit()
    assert (found.code, found.report["findings"]) == (0, [])
    assert found.report["verdict"] == "verified"
    assert [each["commit"] for each in found.report["records"]] == [
        {"sha1": str(commit(number))} for number in (1, 2, 3)
    ]
    assert all(each["builders"] == ["alice", "bob"] for each in found.report["records"])
    (log,) = found.report["logs"]
    assert (log["size"], log["read"], log["since"]) == (15, 15, 0)
    assert found.report["words"] == "3 records, and nothing is false"


Attack = Callable[[Ledger], list[str] | None]


@dataclass(frozen=True)
class Case:
    """What is done, what is found (kind and severity), words of it, and the exit code.

    *whole*: it changes what lies beside an old release, which only a whole audit reads again.
    """

    name: str
    attack: Attack
    found: list[tuple[str, str]]
    words: str
    code: int = 1
    whole: bool = False


def other_images(ledger: Ledger) -> list[MadeImage]:
    return [ledger.other, ledger.arm]


def second_root(ledger: Ledger) -> None:
    ledger.forge(2, images=other_images(ledger), previous=(ledger.digest(3),))


def second_root_unlisted(ledger: Ledger) -> None:
    ledger.forge(2, images=other_images(ledger), listed=False, documents=False)


def second_root_listed_apart(ledger: Ledger) -> None:
    """Listed only beside what nobody has any reason to ask about."""
    before = (Digest.of(b"nowhere"),)
    digest = ledger.forge(2, images=other_images(ledger), previous=before)
    unlist(ledger.layout, commit(2).key, lambda text: digest != _payload_digest(text))


def second_root_not_logged(ledger: Ledger) -> None:
    ledger.forge(2, images=other_images(ledger), logged=False, documents=False)


def second_index(ledger: Ledger) -> None:
    said = ledger.said(2)
    ledger.forge(2, previous=(ledger.digest(3),), index=Digest.of(b"another"), root=said.root)


def second_outputs(ledger: Ledger) -> None:
    """The same systems, and with them two lists of outputs."""
    for number, name in enumerate((b"some", b"others"), 1):
        before, root = (ledger.digest(3),), Digest.of(name)
        ledger.forge(2, previous=before, documents=False, outputs_root=root, outputs_size=number)


def previous_nowhere(ledger: Ledger) -> None:
    ledger.attest_all(commit=commit(4))
    gone = Digest.of(b"gone")
    ledger.done.append(ledger.promote(commit=commit(4)))
    ledger.forge(4, previous=tuple(sorted((gone, ledger.digest(4)))))


def skipping(ledger: Ledger) -> None:
    ledger.attest_all(commit=commit(4))
    ledger.done.append(ledger.promote(commit=commit(4)))
    ledger.forge(4, previous=(ledger.digest(1),))


def evidence_removed(ledger: Ledger) -> None:
    kind = ledger.said(2).evidence
    assert unlist(ledger.layout, ledger.digest(2), lambda text: Digest.of(text) != kind) == 1


def proof_removed(ledger: Ledger) -> None:
    mark = b'"proof":'
    gone = unlist(ledger.layout, ledger.digest(2), lambda t: not (mark in t and ARM.encode() in t))
    assert gone == 1


def proof_of_another(ledger: Ledger) -> None:
    """Release 2 gets the proofs of release 1."""
    from nix_seed.release.records import MEMBER_TYPE, record_subject
    from nix_seed.trust.attestations import list_document

    release = ledger.done[0].release
    unlist(ledger.layout, ledger.digest(2), lambda text: b'"proof":' not in text)
    for leaf in release.leaves:
        text = release.proof(leaf.system).dump()
        list_document(ledger.layout, record_subject(ledger.digest(2)), text, MEMBER_TYPE)


def index_removed(ledger: Ledger) -> None:
    index = ledger.said(1).index
    untag(ledger.layout, "latest", *(str(commit(number)) for number in (1, 2, 3)))
    (ledger.directory / "blobs/sha256" / index.hex).unlink()


def image_removed(ledger: Ledger) -> None:
    digest = ledger.arm.descriptor.digest
    untag(ledger.layout, "arm")
    (ledger.directory / "blobs/sha256" / digest.hex).unlink()


def attestation_removed(ledger: Ledger) -> None:
    assert unlist(ledger.layout, commit(2).key, lambda text: not _signed_by(ledger, "bob", text))


def no_quorum(ledger: Ledger) -> None:
    """A promoter promotes what one builder alone stands for."""
    ledger.attest_all("alice", commit=commit(4))
    ledger.forge(4, previous=(ledger.digest(3),), votes=_of_commit(ledger, 4))


def nobodys_images(ledger: Ledger) -> None:
    ledger.forge(4, images=other_images(ledger), previous=(ledger.digest(3),))


def one_system(ledger: Ledger) -> None:
    ledger.attest_all(commit=commit(4))
    votes = _of_commit(ledger, 4, SYSTEM)
    ledger.forge(4, images=[ledger.image], previous=(ledger.digest(3),), votes=votes)


def evidence_of_other_entries(ledger: Ledger) -> None:
    """The evidence says that attestations lie where something else does."""
    from dataclasses import replace

    def moved(_: object) -> list[Vote]:
        votes = _of_commit(ledger, 4)(())
        return [replace(v, logs=tuple(replace(at, index=0) for at in v.logs)) for v in votes]

    ledger.attest_all(commit=commit(4))
    ledger.forge(4, previous=(ledger.digest(3),), votes=moved)


def foreign_policy(ledger: Ledger) -> None:
    ledger.attest_all(commit=commit(4))
    votes = _of_commit(ledger, 4)
    policy = Digest.of(b"my own rules")
    ledger.forge(4, previous=(ledger.digest(3),), policy=policy, votes=votes)


def outsider(ledger: Ledger) -> None:
    ledger.forge(2, "mallory", images=other_images(ledger), documents=False, listed=True)


def tag_moved(ledger: Ledger) -> None:
    _point(ledger.layout, str(commit(2)), [ledger.other, ledger.arm])


def latest_moved(ledger: Ledger) -> None:
    _point(ledger.layout, "latest", [ledger.other, ledger.arm])


def image_tag_moved(ledger: Ledger) -> None:
    fetched = ledger.layout.get_manifest(ledger.other.descriptor.digest)
    assert fetched is not None
    ledger.layout.put_manifest(fetched.body, MediaType.MANIFEST, f"{commit(2)}-{SYSTEM}")


def latest_is_an_image(ledger: Ledger) -> None:
    fetched = ledger.layout.get_manifest(ledger.image.descriptor.digest)
    assert fetched is not None
    ledger.layout.put_manifest(fetched.body, MediaType.MANIFEST, "latest")


def tag_without_record(ledger: Ledger) -> None:
    _point(ledger.layout, str(commit(9)), [ledger.other, ledger.arm])


def tag_missing(ledger: Ledger) -> None:
    untag(ledger.layout, str(commit(3)))


def second_root_and_a_tag_that_dangles(ledger: Ledger) -> None:
    second_root(ledger)
    dangle(ledger.layout, "v9")


def second_root_and_a_tag_of_other_bytes(ledger: Ledger) -> None:
    second_root(ledger)
    fetched = ledger.layout.get_manifest("latest")
    assert fetched is not None
    body = fetched.body + b" "
    stored = ledger.layout.put_manifest(body, MediaType.INDEX, "v9")
    path = ledger.directory / "blobs" / "sha256" / stored.digest.hex
    path.chmod(0o644)
    path.write_bytes(fetched.body + b"\n")


def copy_behind(ledger: Ledger) -> list[str]:
    mirror = ledger.copy("mirror")
    ledger.release()
    return _copies(ledger, mirror)


def copy_with_a_hole(ledger: Ledger) -> list[str]:
    mirror = ledger.copy("mirror")
    drop_record(mirror, ledger.said(2), ledger.digest(2))
    return _copies(ledger, mirror)


def copy_with_another_root(ledger: Ledger) -> list[str]:
    mirror = ledger.copy("mirror")
    ledger.forge(3, images=other_images(ledger), previous=(ledger.digest(2),), to=mirror)
    drop_record(mirror, ledger.said(3), ledger.digest(3))
    return _copies(ledger, mirror)


def copy_with_another_tag(ledger: Ledger) -> list[str]:
    mirror = ledger.copy("mirror")
    _point(mirror, str(commit(2)), [ledger.other, ledger.arm])
    return _copies(ledger, mirror)


def log_unknown(ledger: Ledger) -> None:
    """The policy does not say where its log is."""
    for digest in range(1, 4):
        assert ledger.said(digest)
    shutil.move(ledger.root / "log", ledger.root / "elsewhere")


def log_tampered(ledger: Ledger) -> None:
    (tile,) = (ledger.root / "log/public/tile/entries/000.p").glob("15")
    data = tile.read_bytes()
    tile.chmod(0o644)
    tile.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])


def hash_tile_tampered(ledger: Ledger) -> None:
    (tile,) = (ledger.root / "log/public/tile/0/000.p").glob("15")
    data = tile.read_bytes()
    tile.chmod(0o644)
    tile.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])


def log_rolled_back(ledger: Ledger) -> None:
    """The log is put back to what it was before the last release."""
    shutil.copytree(ledger.root / "log", ledger.root / "old")
    ledger.release()
    shutil.rmtree(ledger.root / "log")
    shutil.move(ledger.root / "old", ledger.root / "log")


def log_forked(ledger: Ledger) -> None:
    """The log's key signs another tree, as large as the one that it showed with its entries."""
    directory = ledger.root / "log"
    vkey, private = directory / "log.vkey", directory / "private"
    fork = ledger.root / "fork"
    fork.mkdir()
    EmbeddedLog.create(fork, "log.example")
    shutil.copy(vkey, fork / "log.vkey")
    shutil.copytree(private, fork / "private", dirs_exist_ok=True)
    shutil.rmtree(fork / "public")
    log = EmbeddedLog.open(fork)
    from nix_seed.formats.tlog.merkle import build_root

    log._publish(build_root(0, lambda _: []))
    bodies = [HashedRekord(bytes([n]) * 32, b"sig", Verifier(b"key")).dump() for n in range(20)]
    log.append_bodies(bodies)
    shutil.rmtree(directory / "public")
    shutil.copytree(fork / "public", directory / "public")


def entry_in_a_promoters_name(ledger: Ledger) -> None:
    """The log took an entry whose signature it did not check."""
    key = ledger.keys["rita"].public_key.der
    ledger.log.append_bodies([HashedRekord(b"\x07" * 32, b"no signature", Verifier(key)).dump()])


def other_repository(ledger: Ledger) -> None:
    ledger.forge(7, repository="https://forge.example/owner/another", listed=False)


def seen_before(ledger: Ledger) -> None:
    """``verify`` saw another root on this machine."""
    pins = RootPins(ledger.root / "state/auditor/promoted")
    pins.keep(SOURCE, commit(2), Digest.of(b"another root"))


def dissent_before(ledger: Ledger) -> None:
    """It was logged before the release, and shown only afterwards."""
    ledger.attest_all(commit=commit(4))
    source = ledger.says("carol").source
    from dataclasses import replace

    said = ledger.says("carol", ledger.other, source=replace(source, commit=commit(4)))
    bundle = ledger.bundle(ledger.sign(said))
    ledger.done.append(ledger.promote(commit=commit(4)))
    ledger.attach(bundle, ledger.other, commit(4))


def dissent_since(ledger: Ledger) -> None:
    from dataclasses import replace

    source = replace(ledger.says("carol").source, commit=commit(2))
    said = ledger.says("carol", ledger.other, source=source)
    ledger.attach(ledger.bundle(ledger.sign(said)), ledger.other, commit(2))


CASES = [
    Case("second root", second_root, [("conflict", ALARM)], "promoted as 2 different things"),
    Case("second root, listed nowhere", second_root_unlisted, [("withheld", ALARM)],
         "entry 15 of the log log is signed by rita, and what was signed is nowhere"),
    Case("second root, listed apart", second_root_listed_apart, [("conflict", ALARM)],
         "promoted as 2 different things"),
    Case("second root, not logged", second_root_not_logged, [("contradiction", ALARM)],
         "rita signed the root", whole=True),
    Case("second index", second_index, [("conflict", ALARM)], "promoted as 2 different things"),
    Case("second list of outputs", second_outputs, [("conflict", ALARM)],
         "was promoted with several lists of outputs"),
    Case("previous record nowhere", previous_nowhere, [("gap", ALARM)], "is nowhere"),
    Case("skipping", skipping, [("skipped", ALARM)], "does not come after that of"),
    Case("evidence removed", evidence_removed, [("gap", ALARM)], "is nowhere", whole=True),
    Case("proof removed", proof_removed, [("gap", ALARM)],
         "no proof that aarch64-linux belongs to the release", whole=True),
    Case("proof of another", proof_of_another, [("gap", ALARM)], "no proof that", whole=True),
    Case("index removed", index_removed, [("gap", ALARM)], "is in none of the copies", whole=True),
    Case("image removed", image_removed, [("gap", ALARM)], "is in none of the copies", whole=True),
    Case("attestation removed", attestation_removed, [("gap", ALARM)],
         "the attestation of bob for", whole=True),
    Case("no quorum", no_quorum, [("quorum", ALARM)], "1 of the 2 builders wanted agree"),
    Case("nobody's images", nobodys_images, [("quorum", ALARM)], "0 of the 2 builders wanted"),
    Case("one system of two", one_system, [("promoter", ALARM)],
         "enough promoters signed what is no release of"),
    Case("evidence of other entries", evidence_of_other_entries, [("quorum", ALARM)],
         "is not proved to be entry 0 of log"),
    Case("foreign policy", foreign_policy, [("policy", ALARM)], "that this one does not know"),
    Case("outsider", outsider, [("promoter", WARNING)], "is signed by none of the trusted keys",
         code=0, whole=True),
    Case("tag moved", tag_moved, [("tag", ALARM)], "and promoted was sha256:"),
    Case("latest moved", latest_moved, [("tag", ALARM)], "which no record promotes"),
    Case("tag of one system moved", image_tag_moved, [("tag", WARNING)],
         "promoted for that system was sha256:", code=0),
    Case("latest is an image", latest_is_an_image, [("tag", ALARM)], "which no record promotes"),
    Case("tag without record", tag_without_record, [("tag", ALARM)], "and no record promotes"),
    Case("tag that dangles", second_root_and_a_tag_that_dangles,
         [("conflict", ALARM), ("unread", UNCHECKED)], "the tag v9 of oci:"),
    Case("tag of other bytes", second_root_and_a_tag_of_other_bytes,
         [("conflict", ALARM), ("tag", ALARM)], "the tag v9 of oci:"),
    Case("tag missing", tag_missing, [("tag", WARNING)], "has no tag for it", code=0),
    Case("copy behind", copy_behind, [("copies", WARNING)], "is behind", code=0),
    Case("copy with a hole", copy_with_a_hole, [("equivocation", ALARM)],
         "shows another ledger than the other copies"),
    Case("copy with another root", copy_with_another_root, [("equivocation", ALARM)],
         "no copy of the ledger holds both"),
    Case("copy with another tag", copy_with_another_tag, [("copies", ALARM)],
         "names different things"),
    Case("log out of reach", log_unknown, [("log", UNCHECKED)], "it has no checkpoint", code=3),
    Case("log tampered", log_tampered, [("log", ALARM)], "does not hold what it signed",
         whole=True),
    Case("hash tile tampered", hash_tile_tampered, [("log", ALARM)],
         "does not hold its entries' hashes", whole=True),
    Case("log rolled back", log_rolled_back, [("log", ALARM)], "rolled back"),
    Case("log forked", log_forked, [("log", ALARM)], "split view"),
    Case("entry in a promoter's name", entry_in_a_promoters_name, [("log", ALARM)],
         "whose signature it is not"),
    Case("record of another repository", other_repository, [("withheld", ALARM)],
         "is signed by rita, and what was signed is nowhere"),
    Case("seen before", seen_before, [("conflict", ALARM)], "was seen promoted under the root"),
    Case("dissent before", dissent_before, [("quorum", ALARM)],
         "had said so before it was promoted"),
    Case("dissent since", dissent_since, [("quorum", WARNING)], "and said so since", code=0,
         whole=True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_found(case: Case, ledger: Ledger) -> None:
    arguments = case.attack(ledger) or []
    found = ledger.audit(*arguments)
    assert set(case.found) <= set(found.found()), found.report["findings"]
    told = [words for kind, _ in case.found for words in found.words(kind)]
    assert any(case.words in each for each in told), told
    assert found.code == case.code, found.report["findings"]


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.whole], ids=lambda case: case.name
)
@pytest.mark.slow
def test_it_is_found_by_an_audit_that_goes_on(case: Case, ledger: Ledger) -> None:
    """What happens after a clean audit is found by the next one, which reads only what is new."""
    first = ledger.audit()
    assert first.code == 0
    arguments = case.attack(ledger) or []
    found = ledger.audit(*arguments)
    if case.code or case.attack is image_tag_moved:
        assert set(case.found) <= set(found.found()), found.report["findings"]
    assert found.code == case.code, found.report["findings"]


def test_two_logs_that_are_told_different_roots(tmp_path: Path) -> None:
    """One log is enough by the policy, and each has one of the two records."""
    ledger = Ledger.fresh(tmp_path, releases=0)
    log = ledger.add_log("second")
    ledger.release()
    ledger.forge(2, previous=(ledger.digest(1),))
    ledger.forge(2, images=other_images(ledger), log=log, previous=(ledger.digest(1),))
    found = ledger.audit()
    assert ("equivocation", ALARM) in found.found()
    assert any("no log holds both (log; second)" in each for each in found.words("equivocation"))
    assert [(each["id"], each["read"]) for each in found.report["logs"]] == [
        ("log", 6), ("second", 2)
    ]  # fmt: skip


def _payload_digest(text: bytes) -> Digest | None:
    found = Unverified.read(text)
    return found.payload if found and found.promotion else None


def _signed_by(ledger: Ledger, who: str, text: bytes) -> bool:
    return ledger.keys[who].public_key.hint.encode() in text


def _of_commit(ledger: Ledger, number: int, *systems: str) -> Callable[[object], list[Vote]]:
    """Return what gives the votes that logged attestations of release *number* are."""

    def votes(_: object) -> list[Vote]:
        from nix_seed.formats.intoto.bundle import Bundle
        from nix_seed.formats.intoto.statement import Statement, check_build
        from nix_seed.formats.tlog.entry import LogEntry
        from nix_seed.formats.tlog.merkle import leaf_hash
        from nix_seed.trust.attestations import gather
        from nix_seed.trust.rules.policy import LoggedAt

        found = []
        for each in gather([ledger.store], [commit(number).key]).attestations:
            bundle = Bundle.parse(each.text, "a bundle")
            said = check_build(Statement.parse(bundle.envelope.payload, "it"), "it")
            entry = LogEntry.from_json(bundle.tlog_entries[0], "an entry")
            at = LoggedAt("log", entry.index, Digest(leaf_hash(entry.body).hex()))
            if not systems or said.system in systems:
                found.append(Vote(said.system, said.builder, Digest.of(bundle.envelope.pae), (at,)))
        return found

    return votes


def _point(store: LayoutStore, tag: str, images: list[MadeImage]) -> None:
    """Move *tag* by hand to an index of *images*."""
    body = Index(tuple(each.descriptor for each in images)).dump()
    store.put_manifest(body, MediaType.INDEX, tag)


def _copies(ledger: Ledger, mirror: LayoutStore) -> list[str]:
    return ["--from", ledger.repository, "--from", str(mirror)]
