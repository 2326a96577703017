"""Attacks on whoever promotes: what ``nix-seed promote`` must refuse to sign or to publish."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from attacks.histories import NOWHERE
from attacks.logs import second_log
from attacks.promoted import PromotedWorld, promotion_case
from attacks.roots import copy_with
from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE, Commit, first_key, promotion_statement
from nix_seed.release.records import attach_documents, attach_record, find_evidence
from nix_seed.release.rules.tree import Vote
from nix_seed.release.verifiers import RootPins
from nix_seed.trust.sign import KeySigner
from support.trust import COMMIT, SOURCE, SYSTEM, pem

ONE = Commit(f"{1:040x}")


@promotion_case(0, ": promoted")
def promotion_of_what_a_quorum_built(world: PromotedWorld) -> None:
    world.attest_all()
    world.ask_to_promote("rita")


@promotion_case(0, ": already promoted")
def promotion_again(world: PromotedWorld) -> None:
    world.honest()
    world.ask_to_promote("sam")


@promotion_case(1, "aarch64-linux: no image of this commit was found")
def promotion_without_a_system(world: PromotedWorld) -> None:
    world.publish("alice", "bob")
    world.ask_to_promote("rita")


@promotion_case(1, "1 of the 2 builders wanted agree")
def promotion_without_a_quorum(world: PromotedWorld) -> None:
    world.attest_all("alice")
    world.ask_to_promote("rita")


@promotion_case(1, "carol built something else from this commit")
def promotion_over_a_dissent(world: PromotedWorld) -> None:
    world.attest_all()
    world.attest(world.other, "carol")
    world.ask_to_promote("rita")


@promotion_case(1, "0 of the 2 builders wanted agree")
def promotion_of_what_no_log_holds(world: PromotedWorld) -> None:
    """Where verifiers are content without, a release is not."""
    world.quorum["logs"] = "0"
    for image in world.images.values():
        for name in ("alice", "bob"):
            world.attach(world.sign(world.says(name, image)).bundle, image)
    world.ask_to_promote("rita")


@promotion_case(2, "may not promote: by the policy rita, sam may")
def promotion_by_a_stranger(world: PromotedWorld) -> None:
    world.attest_all()
    world.ask_to_promote("mallory")


@promotion_case(1, "was promoted before, by rita, under another root: sha256:")
def promotion_under_a_second_root(world: PromotedWorld) -> None:
    world.attest_all()
    world.publish_record(world.planned(world.backdoored), "rita")
    world.ask_to_promote("sam")


@promotion_case(1, "was promoted before, by rita, under another root: sha256:")
def promotion_under_a_second_root_in_a_copy(world: PromotedWorld) -> None:
    """The other root is only in another repository, which the promoter reads as well."""
    world.attest_all()
    copy_with(world, world.planned(world.backdoored), "rita")
    world.ask_to_promote("sam", "--evidence", f"oci:{world.root / 'copy'}")


@promotion_case(1, f"this machine saw {COMMIT} promoted under the root")
def promotion_under_another_root_than_the_pinned_one(world: PromotedWorld) -> None:
    world.attest_all()
    RootPins(world.root / "state/consumer/promoted").keep(SOURCE, COMMIT, Digest.of(b"seen"))
    world.ask_to_promote("rita")


@promotion_case(1, "names the index")
def promotion_of_another_index_over_the_same_images(world: PromotedWorld) -> None:
    world.attest_all()
    other = world.index([world.image, world.arm])
    world.publish_record(world.planned(index=other.digest), "rita")
    world.ask_to_promote("sam")


@promotion_case(3, "is listed as a referrer of")
def promotion_while_a_record_cannot_be_read(world: PromotedWorld) -> None:
    world.attest_all()
    before = world.listed(COMMIT.key).manifests
    world.publish_record(world.planned(world.backdoored), "rita")
    [place] = [m for m in world.listed(COMMIT.key).manifests if m not in before]
    (world.directory / "blobs/sha256" / place.digest.hex).unlink()
    world.ask_to_promote("sam")


@promotion_case(0, "signed, not yet promoted")
def promotion_on_evidence_that_does_not_fit(world: PromotedWorld) -> None:
    """The first promoter's evidence is not what the second finds: it signs a record of its own."""
    world.quorum["promoters"] = "2"
    world.attest_all()
    world.publish_record(world.planned(), "rita")
    world.ask_to_promote("sam")


@promotion_case(2, "the policy names no log, and a release is made of logged evidence alone")
def promotion_without_a_log(world: PromotedWorld) -> None:
    world.quorum["logs"] = "0"
    world.logs.clear()
    world.ask_to_promote("rita")


@promotion_case(2, "the policy does not say of which repository it is")
def promotion_of_no_repository(world: PromotedWorld) -> None:
    world.attest_all()
    del world.head["source"]
    world.ask_to_promote("rita")


# One false promoter of three, of whom two must sign: it can neither spoil a release nor bar it.


@promotion_case(0, ": promoted")
def promotion_after_one_began_it_with_a_false_epoch(world: PromotedWorld) -> None:
    begun_falsely(world, epoch=7)


@promotion_case(0, ": promoted")
def promotion_after_one_began_it_with_a_false_size(world: PromotedWorld) -> None:
    begun_falsely(world, size=5)


@promotion_case(0, ": promoted")
def promotion_after_one_began_it_from_nowhere(world: PromotedWorld) -> None:
    """A record that comes after what is nowhere would be a gap in the ledger for good."""
    begun_falsely(world, previous=(Digest.of(b"nowhere"),))


@promotion_case(0, ": promoted")
def promotion_after_one_began_it_as_if_the_ledger_were_empty(world: PromotedWorld) -> None:
    """Passing over releases that are there: audits would never be clean again."""
    two_of_three(world)
    for number in (1, 2):
        released(world, Commit(f"{number:040x}"))
    begun_falsely(world, previous=())


@promotion_case(0, "promoted by rita, sam under root sha256:")
def promotion_of_what_one_began_without_proofs(world: PromotedWorld) -> None:
    """Then nobody could verify one system, had the other promoter not put them there."""
    two_of_three(world)
    world.attest_all()
    begun = world.promote("sam").record
    world.hide(begun.digest)
    done = world.promote("rita")
    assert (done.state, done.record.digest) == ("promoted", begun.digest)
    world.question += ["--system", SYSTEM]


@promotion_case(0, ": promoted")
def promotion_after_a_builder_said_the_same_again(world: PromotedWorld) -> None:
    """Else it could have each promoter sign a record of its own, for ever."""
    two_of_three(world)
    world.attest_all()
    assert world.promote("rita").missing == 1
    for image in world.images.values():
        again = world.says("alice", image, finished_on="2026-01-31T13:00:00Z")
        world.attach(world.bundle(world.sign(again)), image)
    world.ask_to_promote("tom")


@promotion_case(0, "signed, not yet promoted")
def promotion_after_a_builder_more_agrees(world: PromotedWorld) -> None:
    """It counts, and so the record of the release is to say so."""
    two_of_three(world)
    world.attest_all()
    assert world.promote("rita").missing == 1
    world.attest_all("carol")
    world.ask_to_promote("tom")


@promotion_case(0, ": promoted")
def promotion_after_one_began_it_with_evidence_in_false_places(world: PromotedWorld) -> None:
    """The votes are true, and lie elsewhere in the log: audits would never be clean again."""
    two_of_three(world)
    world.attest_all()
    begun = world.promote("sam")
    evidence = find_evidence([world.store], begun.record)
    moved = replace(evidence, votes=tuple(map(elsewhere, evidence.votes)))
    for subject in (COMMIT.key, begun.record.digest, first_key(SOURCE)):
        world.hide(subject)
    world.attest_all()
    false = world.record(replace(begun.record.predicate, evidence=moved.digest), "sam")
    attach_documents(world.store, false, begun.release, moved)
    assert world.promote("rita").record.digest != false
    world.ask_to_promote("tom")


def elsewhere(vote: Vote) -> Vote:
    """The vote at another place of each log."""
    return replace(vote, logs=tuple(replace(at, index=at.index + 100) for at in vote.logs))


@promotion_case(0, ": promoted")
def promotion_of_what_one_never_stops_beginning_anew(world: PromotedWorld) -> None:
    """Of two records that would do, it is not the one whose digest comes first that is signed."""
    two_of_three(world)
    released(world, ONE)
    world.attest_all()
    begun = world.promote("rita")
    said, evidence = begun.record.predicate, find_evidence([world.store], begun.record)
    for size in range(3, 1 << 16):
        aside = replace(said, commit=ONE, size=size, previous=())
        own = Digest.of(promotion_statement(aside).dump())
        another = replace(said, previous=tuple(sorted((*said.previous, own))))
        if Digest.of(promotion_statement(another).dump()) < begun.record.digest:
            break
    world.record(aside, "sam", log=False)
    false = world.record(another, "sam", log=False)
    attach_documents(world.store, false, begun.release, evidence)
    world.ask_to_promote("tom")


@promotion_case(0, "signed, not yet promoted")
def promotion_beside_another_root_in_a_log_that_is_away(world: PromotedWorld) -> None:
    """Whatever that log holds, one signature is too few for the other root."""
    two_of_three(world)
    world.attest_all()
    second = second_log(world)
    world.logs[1]["url"] = NOWHERE
    forged = world.planned(world.backdoored)
    bundle = world.bundle(world.keys["sam"].sign(PAYLOAD_TYPE, forged.payload), second)
    attach_record(world.store, forged.predicate, 1, [bundle.dump()])
    world.ask_to_promote("rita")


def two_of_three(world: PromotedWorld) -> None:
    """Have two promoters of three needed, of whom sam is the false one."""
    if "tom" not in world.promoters:
        world.quorum["promoters"] = "2"
        world.keys["tom"] = KeySigner.generate()
        world.promoters["tom"] = {"key": pem(world.keys["tom"])}
        key = world.root / "tom.key"
        key.write_bytes(world.keys["tom"].pem())
        key.chmod(0o600)


def released(world: PromotedWorld, commit: Commit) -> None:
    """Have the honest two release *commit*."""
    world.attest_all(commit=commit)
    assert world.promote("rita", commit=commit).missing == 1
    assert world.promote("tom", commit=commit).state == "promoted"


def begun_falsely(world: PromotedWorld, **said: Any) -> None:
    """Have sam begin the release, true but for what is *said*, and rita and tom promote after."""
    two_of_three(world)
    world.attest_all()
    first = world.promote("sam")
    assert first.missing == 1
    evidence = find_evidence([world.store], first.record)
    for subject in (COMMIT.key, *first.record.predicate.previous):
        world.hide(subject)
    world.attest_all()
    false = world.record(replace(first.record.predicate, **said), "sam")
    attach_documents(world.store, false, first.release, evidence)
    begun = world.promote("rita")
    assert (begun.missing, begun.record.digest != false) == (1, True)
    world.ask_to_promote("tom")
