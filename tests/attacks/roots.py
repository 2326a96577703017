"""Attacks by what a record says: of which images and commit, and as which bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

from attacks.histories import NOWHERE
from attacks.logs import second_log
from attacks.promoted import Forged, PromotedWorld, promotion_case
from attacks.records import record_in_a_split_view
from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE, Commit, promotion_statement
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.open import Stores
from nix_seed.registry.transfer import transfer
from nix_seed.release.records import attach_documents, attach_record
from nix_seed.release.verifiers import RootPins
from nix_seed.trust.attestations import commit_subject
from support.trust import COMMIT, OTHER_COMMIT, SOURCE, SYSTEM

NONE = f"no promotion record of {COMMIT} was found"
BACKDOOR = "alice, bob built something else from this commit"


@promotion_case(1, "1 of the 2 builders wanted agree")
def record_without_a_quorum_of_builders(world: PromotedWorld) -> None:
    """A promoter who does not wait: the record stands, and the builders do not stand behind it."""
    world.attest_all("alice")
    world.publish_record(world.planned(), "rita")


@promotion_case(1, BACKDOOR)
def record_of_a_backdoor(world: PromotedWorld) -> None:
    """Every promoter's key is stolen, and no builder's."""
    world.attest_all()
    world.publish_record(world.planned(world.backdoored), "rita", "sam")


@promotion_case(1, BACKDOOR)
def record_of_a_backdoor_that_a_builder_attests(world: PromotedWorld) -> None:
    world.attest_all()
    world.attest(world.other, "carol")
    world.publish_record(world.planned(world.backdoored), "rita")


@promotion_case(1, "the record is of the repository https://forge.example/fork/project, not of")
def record_of_another_repository(world: PromotedWorld) -> None:
    world.attest_all()
    world.publish_record(world.planned(repository="https://forge.example/fork/project"), "rita")


@promotion_case(1, f"no promotion record of {OTHER_COMMIT} was found")
def record_replayed_onto_another_commit(world: PromotedWorld) -> None:
    """Listed under a commit, a record is still of the commit that it signs."""
    done = world.honest()
    world.list_under(commit_subject(OTHER_COMMIT), done, "rita")
    world.question[0] = str(OTHER_COMMIT)


@promotion_case(0, "promoted by sam under root sha256:")
def second_record_without_proofs_asked_for_one(world: PromotedWorld) -> None:
    """Under the same root: the first one's proofs lead to it as well."""
    done = world.honest()
    others = (replace(done.predicate, previous=(Digest.of(b"%d" % n),)) for n in count())
    world.record(
        next(e for e in others if Digest.of(promotion_statement(e).dump()) < done.digest), "sam"
    )
    world.question += ["--system", SYSTEM]


@promotion_case(0, "promoted by rita under root sha256:")
def record_replayed_beside_the_commits_own_asked_for_one(world: PromotedWorld) -> None:
    """Its proofs are of another tree, and of no interest here."""
    digest = world.honest().digest
    commits = (Commit(f"{number:040x}") for number in count(1))
    older = next(each for c in commits if (each := world.planned(commit=c)).digest < digest)
    world.publish_record(older, "rita")
    world.list_under(commit_subject(COMMIT), older, "rita")
    world.question += ["--system", SYSTEM]


@promotion_case(1, "0 of the 2 builders wanted agree")
def record_of_another_commit_over_the_same_images(world: PromotedWorld) -> None:
    """Promoted for one commit, and a promoter says so of a second that nobody built."""
    world.honest()
    world.publish_record(world.planned(commit=OTHER_COMMIT), "rita")
    world.question[0] = str(OTHER_COMMIT)


@promotion_case(1, f"{COMMIT} was promoted more than once, as different things: sha256:")
def two_roots_of_which_nothing_can_be_had(world: PromotedWorld) -> None:
    """Neither index is there, and yet what was promoted is known to be two things."""
    done = world.honest()
    false = world.publish_record(world.planned(world.backdoored), "rita")
    for index in (done.predicate.index, false.predicate.index):
        (world.directory / "blobs/sha256" / index.hex).unlink()


@promotion_case(1, "the log log shows a split view: it signed two roots for size")
def index_that_is_gone_and_a_log_that_lied(world: PromotedWorld) -> None:
    """The record stands, by another log; that one lied is told all the same."""
    record_in_a_split_view(world)
    second = second_log(world)
    plan = world.planned()
    signed = world.keys["rita"].sign(PAYLOAD_TYPE, plan.payload)
    attach_record(world.store, plan.predicate, 1, [world.bundle(signed, second).dump()])
    (world.directory / "blobs/sha256" / world.planned().predicate.index.hex).unlink()


@promotion_case(1, "was promoted more than once, as different things: sha256:")
def two_roots_in_one_ledger(world: PromotedWorld) -> None:
    world.honest()
    world.publish_record(world.planned(world.backdoored), "rita")


@promotion_case(1, "was promoted more than once, as different things: sha256:")
def two_roots_asked_for_the_honest_image(world: PromotedWorld) -> None:
    """Neither of the two is believed, whichever one has in hand."""
    world.honest()
    world.publish_record(world.planned(world.backdoored), "rita")
    world.ask(str(world.image.descriptor.digest), "--commit", str(COMMIT))


@promotion_case(3, "as something else, too: whether the log second kept what it showed")
def two_roots_of_which_one_is_in_a_log_out_of_reach(world: PromotedWorld) -> None:
    """Who cuts this machine off from a log must not thereby hide that it holds another root."""
    second = second_log(world)
    world.logs[-1]["url"] = NOWHERE
    in_two_logs(world, second)


@promotion_case(1, "was promoted more than once, as different things: sha256:")
def two_roots_of_which_one_is_in_a_log_that_is_not_asked(world: PromotedWorld) -> None:
    """Its proof is there all the same."""
    in_two_logs(world, second_log(world))


def in_two_logs(world: PromotedWorld, second: EmbeddedLog) -> None:
    """Have the honest record in the world's log, and a false one in the *second* alone."""
    world.attest_all()
    world.publish_record(world.planned(), "rita")
    plan = world.planned(world.backdoored)
    signed = world.keys["rita"].sign(PAYLOAD_TYPE, plan.payload)
    attach_record(world.store, plan.predicate, 1, [world.bundle(signed, second).dump()])


@promotion_case(1, "was promoted more than once, as different things: sha256:")
def two_indexes_of_one_root(world: PromotedWorld) -> None:
    """The same images under two indexes: a consumer of the index would see two releases."""
    world.honest()
    other = world.index([world.image, world.arm])
    world.publish_record(world.planned(index=other.digest), "rita")


@promotion_case(0, "one root for this commit among 2 found")
def two_records_of_one_release(world: PromotedWorld) -> None:
    """Two promoters who raced, and found other evidence of the same: no lie."""
    world.honest()
    world.publish_record(world.planned(evidence=Digest.of(b"other evidence")), "sam")


@promotion_case(1, "was promoted more than once, as different things: sha256:")
def two_roots_in_two_ledgers(world: PromotedWorld) -> None:
    """One repository shows one root, its copy another: whoever reads both sees it."""
    world.honest()
    plan = world.planned(world.backdoored)
    copy_with(world, plan, "rita")
    world.question += ["--evidence", f"oci:{world.root / 'copy'}"]


@promotion_case(0, "promoted by rita under root sha256:")
def two_ledgers_that_agree(world: PromotedWorld) -> None:
    done = world.honest()
    copy_with(world, done, "rita")
    world.question += ["--evidence", f"oci:{world.root / 'copy'}"]


@promotion_case(0, "promoted by rita, sam under root sha256:")
def second_root_that_does_not_stand(world: PromotedWorld) -> None:
    """What too few signed is nobody's release, and bars none."""
    world.quorum["promoters"] = "2"
    world.attest_all()
    world.publish_record(world.planned(), "rita", "sam")
    world.publish_record(world.planned(world.backdoored), "rita")


@promotion_case(1, f"this machine saw {COMMIT} promoted under the root")
def root_that_differs_from_the_pinned_one(world: PromotedWorld) -> None:
    """The first release is hidden from the ledger, and not from who saw it."""
    world.attest_all()
    seen = world.planned(world.backdoored).predicate.root
    RootPins(world.root / "state/consumer/promoted").keep(SOURCE, COMMIT, seen)
    world.publish_record(world.planned(), "rita")


@promotion_case(3, "the root seen before is damaged")
def pinned_root_that_is_damaged(world: PromotedWorld) -> None:
    world.honest()
    pins = world.root / "state/consumer/promoted"
    RootPins(pins).keep(SOURCE, COMMIT, Digest.of(b""))
    for path in pins.glob("*.root"):
        path.write_text("sha256:nothing")


# As which bytes.


def stated(world: PromotedWorld, edit: Callable[[Any], None]) -> None:
    """Have a promoter sign the honest statement with something in it changed."""
    world.attest_all()
    plan = world.planned()
    value = json.loads(plan.payload)
    edit(value)
    world.publish_statement(plan, canonical_json.dumps(value), "rita")


@promotion_case(1, NONE)
def record_with_a_subject_more(world: PromotedWorld) -> None:
    more = {"name": "", "digest": {"sha256": "0" * 64}}
    stated(world, lambda value: value["subject"].append(more))


@promotion_case(1, NONE)
def record_with_a_subject_less(world: PromotedWorld) -> None:
    stated(world, lambda value: value["subject"].pop())


@promotion_case(1, NONE)
def record_of_another_index_than_its_subject(world: PromotedWorld) -> None:
    stated(world, lambda value: value["predicate"].update(index=f"sha256:{'0' * 64}"))


@promotion_case(1, NONE)
def record_with_a_member_more(world: PromotedWorld) -> None:
    stated(world, lambda value: value["predicate"].update(note="reviewed"))


@promotion_case(1, NONE)
def record_with_a_member_less(world: PromotedWorld) -> None:
    stated(world, lambda value: value["predicate"].pop("evidence"))


@promotion_case(1, NONE)
def record_with_a_member_in_another_spelling(world: PromotedWorld) -> None:
    stated(world, lambda value: value["predicate"].update(Index=value["predicate"]["index"]))


@promotion_case(1, NONE)
def record_with_unsorted_predecessors(world: PromotedWorld) -> None:
    two = sorted(str(Digest.of(text)) for text in (b"one", b"two"))
    stated(world, lambda value: value["predicate"].update(previous=two[::-1]))


@promotion_case(1, NONE)
def record_that_is_not_canonical(world: PromotedWorld) -> None:
    """One release has one record: a second spelling would have another digest."""
    world.attest_all()
    plan = world.planned()
    world.publish_statement(plan, json.dumps(json.loads(plan.payload)).encode(), "rita")


@promotion_case(1, NONE)
def record_of_another_predicate_type(world: PromotedWorld) -> None:
    stated(world, lambda value: value.update(predicateType="urn:nix-seed:promotion:v2"))


@promotion_case(1, NONE)
def build_attestation_offered_as_a_record(world: PromotedWorld) -> None:
    """A promoter's key under a build, listed where records are."""
    world.attest_all()
    plan = world.planned()
    said = world.says("rita")
    attach_record(world.store, plan.predicate, 1, [world.bundle(world.sign(said)).dump()])


@promotion_case(1, "0 of the 2 builders wanted agree")
def record_offered_as_a_build(world: PromotedWorld) -> None:
    """Builders' keys under a record say nothing of a build."""
    world.publish_record(world.planned(), "rita", "alice", "bob")


def copy_with(world: PromotedWorld, forged: Forged, *names: str) -> None:
    """Make a copy of the repository, in which *forged* is what was promoted."""
    copy = LayoutStore(Layout.create(world.root / "copy"))
    for image in (*world.images.values(), world.other):
        found = world.store.get_manifest(image.descriptor.digest)
        assert found is not None
        transfer(world.store, found, copy)
    payload = promotion_statement(forged.predicate).dump()
    bundles = [world.bundle(world.keys[n].sign(PAYLOAD_TYPE, payload)).dump() for n in names]
    attach_record(copy, forged.predicate, 1, bundles)
    attach_documents(copy, forged.digest, forged.release, forged.evidence)
    assert Stores().open(parse_reference(f"oci:{world.root / 'copy'}")) is not None
