"""Attacks by the index of a release and the tags that name it: moved, shortened, padded."""

from __future__ import annotations

from dataclasses import replace

from attacks.promoted import PromotedWorld, promotion_case
from nix_seed.formats.oci.manifest import Index, MediaType
from support.releases import ARM
from support.trust import COMMIT, OTHER_COMMIT, SYSTEM, TAMPERED, make_image

OF_COMMIT = ("--commit", str(COMMIT))


@promotion_case(0, "every image has its quorum; promoted by rita under root sha256:")
def promoted_commit(world: PromotedWorld) -> None:
    world.honest()


@promotion_case(0, "every image has its quorum; promoted by rita under root sha256:")
def promoted_index(world: PromotedWorld) -> None:
    world.honest("latest")
    world.ask("latest", *OF_COMMIT)


@promotion_case(0, "promoted by rita under root sha256:")
def promoted_image(world: PromotedWorld) -> None:
    world.honest()
    world.ask(str(world.arm.descriptor.digest))


@promotion_case(1, "there is no image for aarch64-linux")
def index_with_a_system_missing(world: PromotedWorld) -> None:
    world.honest()
    world.index([world.image], "latest")
    world.ask("latest", *OF_COMMIT)


@promotion_case(1, "riscv64-linux: 0 of the 2 builders wanted agree")
def index_with_an_image_more(world: PromotedWorld) -> None:
    """An image of a system that no policy knows, hung beside the promoted ones."""
    world.honest()
    third = make_image(world.store, world.root / "t", "t", TAMPERED, "riscv64-linux")
    world.index([world.arm, third, world.image], "latest")
    world.ask("latest", *OF_COMMIT)


@promotion_case(1, "has several images for one system")
def index_with_one_system_twice(world: PromotedWorld) -> None:
    world.honest()
    world.index([world.arm, world.image, world.other], "latest")
    world.ask("latest", *OF_COMMIT)


@promotion_case(1, "was promoted")
def index_in_another_order(world: PromotedWorld) -> None:
    """The promoted images, otherwise listed: another index than the one that was signed."""
    world.honest()
    found = world.index([world.image, world.arm], "latest")
    assert found.digest != world.index([world.arm, world.image]).digest
    world.ask("latest", *OF_COMMIT)


@promotion_case(1, "the index is sha256:")
def index_with_an_annotation_more(world: PromotedWorld) -> None:
    done = world.honest()
    found = world.store.get_manifest(done.index.digest)
    assert found is not None
    index = replace(Index.parse(found.body, "x"), annotations={"org.example": "mine"})
    world.raw_index(index, "latest")
    world.ask("latest", *OF_COMMIT)


@promotion_case(1, "the index is sha256:")
def index_of_the_promoted_images_asked_for_one_system(world: PromotedWorld) -> None:
    """Even where one system's image is the promoted one, its index must be."""
    world.honest()
    world.index([world.image], "latest")
    world.ask("latest", *OF_COMMIT, "--system", SYSTEM)


@promotion_case(1, "alice, bob built something else from this commit")
def tag_moved_to_a_backdoor(world: PromotedWorld) -> None:
    world.honest("latest")
    world.index([world.arm, world.other], "latest")
    world.ask("latest", *OF_COMMIT)


@promotion_case(1, "alice, bob built something else from this commit")
def tag_of_the_commit_moved_to_a_backdoor(world: PromotedWorld) -> None:
    world.honest()
    world.index([world.arm, world.other], str(COMMIT))
    world.ask(str(COMMIT), *OF_COMMIT)


@promotion_case(0, "every image has its quorum; promoted by rita under root sha256:")
def tag_moved_and_the_commit_asked(world: PromotedWorld) -> None:
    """Who names the commit needs no tag."""
    world.honest("latest")
    world.index([world.arm, world.other], "latest", str(COMMIT))


@promotion_case(1, "there is no image for aarch64-linux")
def tag_moved_to_one_image_s_index(world: PromotedWorld) -> None:
    world.honest("latest")
    world.index([world.image], str(COMMIT))
    world.ask(str(COMMIT))


@promotion_case(1, "alice, bob built something else from this commit")
def tag_moved_to_an_older_release(world: PromotedWorld) -> None:
    """A release that was true once is none of the commit that is asked for."""
    older_release(world)
    world.ask("latest", *OF_COMMIT)


@promotion_case(0, "promoted by rita under root sha256:")
def tag_moved_to_an_older_release_and_no_commit_named(world: PromotedWorld) -> None:
    """What no verifier can tell who asks for a name alone: the answer says which commit it is."""
    older_release(world)
    world.ask("latest")


@promotion_case(1, "the index is sha256:")
def index_pointing_elsewhere_by_those_who_promoted(world: PromotedWorld) -> None:
    """A promoter signs another index beside the right root."""
    world.attest_all()
    elsewhere = world.index([world.image, world.arm], "latest").digest
    plan = world.planned(index=world.index([world.arm]).digest)
    assert elsewhere != plan.predicate.index
    world.publish_record(plan, "rita")
    world.ask("latest", *OF_COMMIT)


@promotion_case(3, "which is not in")
def index_withheld(world: PromotedWorld) -> None:
    done = world.honest()
    blobs = world.directory / "blobs/sha256"
    drop_listed(world, done.predicate.index)
    (blobs / done.predicate.index.hex).unlink()


@promotion_case(1, "which is missing")
def image_withheld(world: PromotedWorld) -> None:
    world.honest()
    drop_listed(world, world.arm.descriptor.digest)
    (world.directory / "blobs/sha256" / world.arm.descriptor.digest.hex).unlink()


@promotion_case(1, "its images are of no one commit that could be promoted")
def index_of_two_commits(world: PromotedWorld) -> None:
    """Each image has its quorum, and they are of two commits: no release has both."""
    world.attest(world.image, "alice", "bob")
    world.attest(world.arm, "alice", "bob", commit=OTHER_COMMIT)
    world.index([world.arm, world.image], "latest")
    world.ask("latest")


def older_release(world: PromotedWorld) -> None:
    """Release one commit and then another, and move ``latest`` back."""
    old = {
        SYSTEM: make_image(world.store, world.root / "old", "old", TAMPERED),
        ARM: make_image(world.store, world.root / "old-arm", "old-arm", TAMPERED, ARM),
    }
    for image in old.values():
        world.attest(image, "alice", "bob", commit=OTHER_COMMIT)
    before = world.promote("rita", "latest", commit=OTHER_COMMIT)
    world.honest("latest")
    found = world.store.get_manifest(before.record.predicate.index)
    assert found is not None
    world.store.put_manifest(found.body, MediaType.INDEX, "latest")


def drop_listed(world: PromotedWorld, digest: object) -> None:
    """Take a manifest out of the layout's own list, as a registry deletes one."""
    import json

    path = world.directory / "index.json"
    value = json.loads(path.read_bytes())
    value["manifests"] = [m for m in value["manifests"] if m["digest"] != str(digest)]
    path.write_text(json.dumps(value))
