"""Attacks by promotion records: by whom, in which logs, under which policy."""

from __future__ import annotations

from attacks.logs import second_log
from attacks.promoted import PromotedWorld, promotion_case
from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE
from nix_seed.formats.tlog.merkle import TreeHead
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.release.records import attach_documents, attach_record
from support.trust import COMMIT, SYSTEM

NONE = f"no promotion record of {COMMIT} was found"
BACKDOOR = "alice, bob built something else from this commit"


# Who may.


@promotion_case(1, NONE)
def record_by_a_stranger(world: PromotedWorld) -> None:
    world.attest_all()
    world.publish_record(world.planned(), "mallory")


@promotion_case(1, NONE)
def record_by_a_builder(world: PromotedWorld) -> None:
    """Who builds does not thereby promote."""
    world.attest_all()
    world.publish_record(world.planned(), "alice", "bob", "carol")


@promotion_case(1, NONE)
def record_by_a_former_promoter(world: PromotedWorld) -> None:
    world.attest_all()
    del world.promoters["sam"]
    world.publish_record(world.planned(), "sam")


@promotion_case(1, "1 of the 2 promoters that must sign the record did")
def record_by_one_promoter_of_two(world: PromotedWorld) -> None:
    world.quorum["promoters"] = "2"
    world.attest_all()
    world.publish_record(world.planned(), "rita")


@promotion_case(1, "1 of the 2 promoters that must sign the record did")
def record_signed_twice_by_one_promoter(world: PromotedWorld) -> None:
    """Each ECDSA signature is another one, and the promoter one and the same."""
    world.quorum["promoters"] = "2"
    world.attest_all()
    world.publish_record(world.planned(), "rita", "rita")


@promotion_case(1, "1 of the 2 promoters that must sign the record did")
def record_by_a_promoter_and_a_stranger(world: PromotedWorld) -> None:
    world.quorum["promoters"] = "2"
    world.attest_all()
    world.publish_record(world.planned(), "rita", "mallory")


@promotion_case(1, "1 of the 2 promoters that must sign the record did")
def two_records_by_two_promoters(world: PromotedWorld) -> None:
    """Of one release, and yet not one record: each is signed by one."""
    world.quorum["promoters"] = "2"
    world.attest_all()
    world.publish_record(world.planned(), "rita")
    world.publish_record(world.planned(evidence=Digest.of(b"another")), "sam")


@promotion_case(0, "promoted by rita, sam under root sha256:")
def record_by_both_promoters(world: PromotedWorld) -> None:
    world.quorum["promoters"] = "2"
    world.attest_all()
    world.publish_record(world.planned(), "rita", "sam")


# In which logs.


@promotion_case(1, "rita's signature is proved to be in 0 of the 1 logs")
def record_in_no_log(world: PromotedWorld) -> None:
    world.attest_all()
    world.publish_record(world.planned(), "rita", log=False)


@promotion_case(1, "rita's signature is proved to be in 0 of the 1 logs")
def record_in_no_log_where_none_is_demanded_of_builders(world: PromotedWorld) -> None:
    """Attestations may go without; a release is public or none."""
    world.quorum["logs"] = "0"
    world.attest_all()
    world.publish_record(world.planned(), "rita", log=False)


@promotion_case(1, "rita's signature is proved to be in 1 of the 2 logs")
def record_in_too_few_logs(world: PromotedWorld) -> None:
    world.quorum["logs"] = "2"
    second = second_log(world)
    logged_everywhere(world, second)
    world.publish_record(world.planned(), "rita")


@promotion_case(1, "rita's signature is proved to be in 1 of the 2 logs")
def record_twice_in_one_log(world: PromotedWorld) -> None:
    world.quorum["logs"] = "2"
    second = second_log(world)
    logged_everywhere(world, second)
    plan = world.planned()
    for _ in range(2):
        world.publish_record(plan, "rita")


@promotion_case(0, "promoted by rita under root sha256:")
def record_in_two_logs_in_two_bundles(world: PromotedWorld) -> None:
    world.quorum["logs"] = "2"
    second = second_log(world)
    logged_everywhere(world, second)
    plan = world.planned()
    signed = world.keys["rita"].sign(PAYLOAD_TYPE, plan.payload)
    bundles = [world.bundle(signed, log).dump() for log in (world.log, second)]
    attach_record(world.store, plan.predicate, 1, bundles)
    attach_documents(world.store, plan.digest, plan.release, plan.evidence)


@promotion_case(1, "rita's signature is proved to be in 0 of the 1 logs")
def record_in_a_log_of_no_policy(world: PromotedWorld) -> None:
    world.attest_all()
    stranger = EmbeddedLog.create(world.root / "stranger", "stranger.example")
    plan = world.planned()
    signed = world.keys["rita"].sign(PAYLOAD_TYPE, plan.payload)
    attach_record(world.store, plan.predicate, 1, [world.bundle(signed, stranger).dump()])


@promotion_case(1, "the log log shows a split view: it signed two roots for size")
def record_in_a_split_view(world: PromotedWorld) -> None:
    """The log shows the record to one reader, in a tree that nobody else sees."""
    world.attest_all()
    twin = EmbeddedLog(world.root / "twin", world.log.key)
    twin._publish(TreeHead(0, world.log.checkpoint().head.root))
    twin.append_bodies([b"leaf %d" % number for number in range(3)])
    plan = world.planned()
    signed = world.keys["rita"].sign(PAYLOAD_TYPE, plan.payload)
    both = [world.bundle(signed, log).dump() for log in (twin, world.log)]
    # One more in the honest log, so that both have shown a tree of one size.
    assert world.log.checkpoint().head.size == 5
    twin.append_bodies([b"leaf 4"])
    both.append(world.bundle(signed, twin).dump())
    attach_record(world.store, plan.predicate, 1, both)
    world.logs[0].pop("url")


# Under which policy.


@promotion_case(1, "epoch 1, which this one, epoch 2, does not accept")
def record_under_an_old_policy(world: PromotedWorld) -> None:
    world.honest()
    world.head["epoch"] = "2"


@promotion_case(0, "promoted by rita under root sha256:")
def record_under_an_accepted_old_policy(world: PromotedWorld) -> None:
    done = world.honest()
    world.head |= {"epoch": "2", "accepts": f'["{done.predicate.policy}"]'}


@promotion_case(1, NONE)
def record_under_an_accepted_old_policy_by_a_promoter_since_removed(world: PromotedWorld) -> None:
    """Old policies are accepted, not those whom they alone let promote."""
    done = world.honest()
    del world.promoters["rita"]
    world.head |= {"epoch": "2", "accepts": f'["{done.predicate.policy}"]'}


@promotion_case(1, "alice was revoked at 2020-01-01 00:00 UTC")
def record_under_an_accepted_old_policy_of_a_builder_since_revoked(world: PromotedWorld) -> None:
    """The quorum is judged by what is known now."""
    done = world.honest()
    world.head |= {"epoch": "2", "accepts": f'["{done.predicate.policy}"]'}
    world.builders["alice"]["revokedAt"] = "2020-01-01T00:00:00Z"


@promotion_case(1, "the record is of 1 systems, and a release by that policy has 2")
def record_of_one_system_under_an_accepted_old_policy_asked_for_one(world: PromotedWorld) -> None:
    """Signed now, by the old policy's epoch: who asks for one system sees no other."""
    old = Digest.of(world.write_policy().read_bytes())
    world.attest_all()
    world.head |= {"epoch": "2", "accepts": f'["{old}"]'}
    plan = world.planned({SYSTEM: world.image}, policy=old, epoch=1)
    world.publish_record(plan, "rita")
    world.question += ["--system", SYSTEM]


@promotion_case(1, "the record is of 2 systems, and a release by that policy has 3")
def record_under_an_old_policy_accepted_for_more_systems(world: PromotedWorld) -> None:
    done = world.honest()
    accepted = f'{{policy = "{done.predicate.policy}", systems = 3}}'
    world.head |= {"epoch": "2", "accepts": f"[{accepted}]"}


@promotion_case(0, "promoted by rita under root sha256:")
def record_of_fewer_systems_under_an_old_policy_accepted_for_them(world: PromotedWorld) -> None:
    """One more system since: the releases before it had one less, as the policy says."""
    both = world.head["systems"]
    world.head["systems"] = f'["{SYSTEM}"]'
    done = world.honest()
    accepted = f'{{policy = "{done.predicate.policy}", systems = 1}}'
    world.head |= {"systems": both, "epoch": "2", "accepts": f"[{accepted}]"}
    world.question += ["--system", SYSTEM]


@promotion_case(1, "epoch 3, which this one, epoch 2, does not accept")
def record_under_an_accepted_policy_of_a_later_epoch(world: PromotedWorld) -> None:
    world.head["epoch"] = "3"
    done = world.honest()
    world.head |= {"epoch": "2", "accepts": f'["{done.predicate.policy}"]'}


@promotion_case(1, "which this one, epoch 1, does not accept")
def record_under_a_foreign_policy(world: PromotedWorld) -> None:
    world.attest_all()
    world.publish_record(world.planned(policy=Digest.of(b"their trust.toml")), "rita")


@promotion_case(1, "it says epoch 7 of this policy, whose epoch is 1")
def record_that_misstates_its_epoch(world: PromotedWorld) -> None:
    world.attest_all()
    world.publish_record(world.planned(epoch=7), "rita")


@promotion_case(1, "it says epoch 1 of this policy, whose epoch is 2")
def record_that_states_an_epoch_before_its_policy(world: PromotedWorld) -> None:
    world.head["epoch"] = "2"
    world.attest_all()
    world.publish_record(world.planned(epoch=1), "rita")


@promotion_case(2, "the policy expired on 2020-01-01 00:00 UTC")
def record_under_an_expired_policy(world: PromotedWorld) -> None:
    world.honest()
    world.head["expires"] = "2020-01-01T00:00:00Z"


def logged_everywhere(world: PromotedWorld, second: EmbeddedLog) -> None:
    """Attest both images in two logs."""
    second_place = second.directory.name
    world.logs[1]["url"] = f'"{second_place}"'
    for image in world.images.values():
        for name in ("alice", "bob"):
            signed = world.sign(world.says(name, image))
            world.attach(world.bundle(signed, world.log, second), image)
