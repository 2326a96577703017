"""Attacks by the tree over a release's systems: leaves, nodes, sizes, proofs."""

from attacks.promoted import PromotedWorld, promotion_case, proof_text
from nix_seed.core.digests import Digest
from nix_seed.formats.tlog.merkle import EMPTY_ROOT, leaf_hash, node_hash
from nix_seed.release.rules.tree import build_release
from support.releases import ARM
from support.trust import COMMIT, OTHER_COMMIT, SYSTEM


@promotion_case(0, "leaf 1 of 2, 1 hashes lead to the root")
def proof_of_one_system(world: PromotedWorld) -> None:
    """The honest answer, from this system's data alone."""
    world.honest()
    world.question += ["--system", SYSTEM]


@promotion_case(1, "it is no leaf of nix-seed/release/v1, or not spelled as one")
def node_passed_off_as_a_leaf(world: PromotedWorld) -> None:
    """Second preimage: what lies under the root, offered as the one leaf of a smaller tree."""
    done = world.honest()
    arm, intel = (leaf.hash for leaf in done.release.leaves)
    leaf = world.leaf(world.image).to_json() | {"domain": (arm + intel).hex()}
    world.replace_proof(done, proof_text(leaf, 0, 1, ()))


@promotion_case(1, "x86_64-linux is of a tree of 1 leaves, and the promotion is of 2")
def leaf_passed_off_as_a_tree(world: PromotedWorld) -> None:
    done = world.honest()
    world.replace_proof(done, proof_text(world.leaf(world.image).to_json(), 0, 1, ()))


@promotion_case(1, "the inclusion proof of leaf 0 does not lead to the root")
def root_that_is_a_node_of_the_honest_tree(world: PromotedWorld) -> None:
    """A promoter signs the root of two leaves as a tree of one: no leaf hashes to a node."""
    world.head["systems"] = f'["{SYSTEM}"]'
    world.publish("alice", "bob")
    plan = world.planned(size=1)
    world.publish_record(plan, "rita")
    world.replace_proof(plan, proof_text(world.leaf(world.image).to_json(), 0, 1, ()))


@promotion_case(1, "x86_64-linux is of a tree of 3 leaves, and the promotion is of 2")
def duplicated_last_leaf_in_a_proof(world: PromotedWorld) -> None:
    """CVE-2012-2459: where odd leaves are paired with themselves, [a, b, b] is [a, b, b, b]."""
    done = world.honest()
    arm, intel = (leaf.hash for leaf in done.release.leaves)
    leaf = world.leaf(world.image).to_json()
    world.replace_proof(done, proof_text(leaf, 2, 3, (node_hash(arm, intel),)))


@promotion_case(1, "the root over aarch64-linux, riscv64-linux, x86_64-linux is sha256:")
def duplicated_last_leaf_in_a_root(world: PromotedWorld) -> None:
    """A promoter signs the root that pairing the last leaf with itself gives."""
    images = world.three_systems()
    one, two, three = (world.leaf(images[system], system).hash for system in sorted(images))
    twice = node_hash(node_hash(one, two), node_hash(three, three))
    world.publish_record(world.planned(images, root=Digest(twice.hex())), "rita")


@promotion_case(1, "has several images for one system")
def duplicated_last_image_in_an_index(world: PromotedWorld) -> None:
    """The same, in the index: the last image is listed twice."""
    images = world.three_systems()
    world.publish_record(world.planned(images), "rita")
    ordered = [images[system] for system in sorted(images)]
    world.index([*ordered, ordered[-1]], "latest")
    world.ask("latest", "--commit", str(COMMIT))


@promotion_case(0, "every image has its quorum; promoted by rita under root sha256:")
def three_systems(world: PromotedWorld) -> None:
    """The honest tree of an odd number of leaves."""
    world.publish_record(world.planned(world.three_systems()), "rita")


@promotion_case(1, "the record is of 3 systems, and a release by this policy has 2")
def promoted_size_with_a_leaf_more(world: PromotedWorld) -> None:
    """The right root over one leaf more than there are: the size is signed with it."""
    world.attest_all()
    world.publish_record(world.planned(size=3), "rita")


@promotion_case(1, f"no promotion record of {'c0ffee' + '0' * 34} was found")
def empty_tree(world: PromotedWorld) -> None:
    """A record over no system at all: a release has one at least."""
    world.attest_all()
    plan = world.planned(root=Digest(EMPTY_ROOT.hex()))
    world.publish_statement(plan, plan.payload.replace(b'"size":2', b'"size":0'), "rita")


@promotion_case(0, "leaf 1 of 2, 1 hashes lead to the root")
def unreadable_beside_the_true_proof(world: PromotedWorld) -> None:
    """What is listed before it, and gone or altered in the store, hides nothing."""
    done = world.honest()
    world.hide(done.digest)
    for rubbish in (b"gone", b"altered"):
        world.add_proof(done, rubbish)
        blob = world.directory / "blobs/sha256" / Digest.of(rubbish).hex
        blob.unlink()
        if rubbish == b"altered":
            blob.write_bytes(b"ALTERED")
    world.add_proof(done, done.release.proof(SYSTEM).dump())
    world.question += ["--system", SYSTEM]


@promotion_case(3, f"promoted, and for {SYSTEM}: ")
def proof_listed_and_not_there(world: PromotedWorld) -> None:
    """It may have been the true one."""
    done = world.honest()
    text = done.release.proof(SYSTEM).dump()
    world.replace_proof(done, text)
    (world.directory / "blobs/sha256" / Digest.of(text).hex).unlink()


@promotion_case(0, "leaf 1 of 2, 1 hashes lead to the root")
def rubbish_beside_the_true_proof(world: PromotedWorld) -> None:
    """Whatever else lies there, one good proof is one."""
    done = world.honest()
    text = done.release.proof(SYSTEM).dump()
    world.replace_proof(done, text)
    world.add_proof(done, b"")
    world.add_proof(done, proof_text({}, 0, 0, ()))


@promotion_case(0, "leaf 0 of 1, 0 hashes lead to the root")
def tree_of_one_leaf(world: PromotedWorld) -> None:
    world.head["systems"] = f'["{SYSTEM}"]'
    world.publish("alice", "bob")
    world.promote()
    world.question += ["--system", SYSTEM]


@promotion_case(1, "the record is of 1 systems, and a release by this policy has 2")
def tree_of_one_leaf_where_two_are_demanded(world: PromotedWorld) -> None:
    """A promoter releases one system of two."""
    world.attest_all()
    world.publish_record(world.planned({SYSTEM: world.image}), "rita")


@promotion_case(1, "the record is of 1 systems, and a release by this policy has 2")
def tree_of_one_leaf_where_two_are_demanded_asked_for_one(world: PromotedWorld) -> None:
    """The same, to a consumer that sees no index: the signed size gives it away."""
    world.attest_all()
    world.publish_record(world.planned({SYSTEM: world.image}), "rita")
    world.question += ["--system", SYSTEM]


@promotion_case(1, "the root over aarch64-linux, x86_64-linux is sha256:")
def leaves_in_another_order(world: PromotedWorld) -> None:
    """The root over the same leaves the other way round is another root."""
    world.attest_all()
    arm, intel = (world.leaf(world.images[s], s).hash for s in (ARM, SYSTEM))
    world.publish_record(world.planned(root=Digest(node_hash(intel, arm).hex())), "rita")


@promotion_case(1, "the root over aarch64-linux, x86_64-linux is sha256:")
def leaves_hashed_without_their_prefix(world: PromotedWorld) -> None:
    """RFC 6962 tells leaves from nodes by a byte; a root without it is none."""
    import hashlib

    world.attest_all()
    arm, intel = (
        hashlib.sha256(world.leaf(world.images[s], s).dump()).digest() for s in (ARM, SYSTEM)
    )
    bare = hashlib.sha256(arm + intel).hexdigest()
    world.publish_record(world.planned(root=Digest(bare)), "rita")


@promotion_case(1, "is that of aarch64-linux")
def member_proof_of_another_system(world: PromotedWorld) -> None:
    done = world.honest()
    world.replace_proof(done, done.release.proof(ARM).dump())


@promotion_case(1, "the inclusion proof of leaf 1 does not lead to the root")
def member_proof_of_another_commit(world: PromotedWorld) -> None:
    done = world.honest()
    images = {s: (i.spec.nar_hash, i.descriptor.digest) for s, i in world.images.items()}
    other = build_release(OTHER_COMMIT, images)
    world.replace_proof(done, other.proof(SYSTEM).dump())


@promotion_case(1, "the inclusion proof of leaf 1 does not lead to the root")
def member_proof_of_another_tree(world: PromotedWorld) -> None:
    """A tree of the attacker's own, with the image that has the backdoor."""
    done = world.honest()
    world.replace_proof(done, world.planned(world.backdoored).release.proof(SYSTEM).dump())


@promotion_case(1, "the inclusion proof of leaf 0 does not lead to the root")
def member_proof_at_another_place(world: PromotedWorld) -> None:
    done = world.honest()
    proof = done.release.proof(SYSTEM)
    world.replace_proof(done, proof_text(proof.leaf.to_json(), 0, 2, proof.hashes))


@promotion_case(1, "leaf 2 cannot be in a tree of 2 leaves")
def member_proof_beyond_the_tree(world: PromotedWorld) -> None:
    done = world.honest()
    proof = done.release.proof(SYSTEM)
    world.replace_proof(done, proof_text(proof.leaf.to_json(), 2, 2, proof.hashes))


@promotion_case(1, "the inclusion proof of leaf 1 has hashes too few")
def member_proof_cut_short(world: PromotedWorld) -> None:
    done = world.honest()
    world.replace_proof(done, proof_text(world.leaf(world.image).to_json(), 1, 2, ()))


@promotion_case(1, "the inclusion proof of leaf 1 has hashes too many")
def member_proof_too_long(world: PromotedWorld) -> None:
    done = world.honest()
    proof = done.release.proof(SYSTEM)
    hashes = (*proof.hashes, leaf_hash(b""))
    world.replace_proof(done, proof_text(proof.leaf.to_json(), 1, 2, hashes))


@promotion_case(1, "65 of them; at most 64 are read")
def member_proof_without_end(world: PromotedWorld) -> None:
    done = world.honest()
    leaf = world.leaf(world.image).to_json()
    world.replace_proof(done, proof_text(leaf, 1, 2, [leaf_hash(b"")] * 65))


@promotion_case(1, "is not spelled as it would be written")
def member_proof_in_another_spelling(world: PromotedWorld) -> None:
    done = world.honest()
    world.replace_proof(done, done.release.proof(SYSTEM).dump() + b"\n")


@promotion_case(3, "none lies beside the record")
def member_proof_withheld(world: PromotedWorld) -> None:
    done = world.honest()
    world.hide(done.digest)
    world.question += ["--system", SYSTEM]


@promotion_case(1, "and for riscv64-linux: a release by this policy has no riscv64-linux")
def system_that_was_not_promoted(world: PromotedWorld) -> None:
    world.honest()
    world.question += ["--system", "riscv64-linux"]
