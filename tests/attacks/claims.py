"""Attacks by what is said, by whom, of what."""

from __future__ import annotations

from dataclasses import replace

from attacks.cases import case
from nix_seed.core.digests import Digest
from nix_seed.formats.intoto.statement import KeyCount, NixFacts, PathCounts, Source
from nix_seed.trust.sign import KeySigner
from support.trust import COMMIT, OTHER_COMMIT, SOURCE, World


@case(0, "quorum met: 2 builders agree (alice, bob), 2 are wanted")
def honest_builders(world: World) -> None:
    world.publish("alice", "bob")


@case(0, "quorum met: 3 builders agree (alice, bob, carol), 2 are wanted")
def honest_builders_all(world: World) -> None:
    world.publish("alice", "bob", "carol")


@case(1, "no builder of the policy says of any commit that this is its image")
def nothing_attested(world: World) -> None:
    world.arguments = []


@case(1, "0 of the 2 builders wanted agree")
def nothing_attested_for_the_commit(world: World) -> None:
    pass


@case(1, "1 of the 2 builders wanted agree")
def withheld_attestation(world: World) -> None:
    world.publish("alice")


@case(1, "1 of the 2 builders wanted agree")
def same_builder_twice(world: World) -> None:
    world.publish("alice")
    world.publish("alice", finished_on="2026-02-01T00:00:00Z")


@case(1, f"it is about the commit {OTHER_COMMIT}")
def replay_for_another_commit(world: World) -> None:
    source = Source(SOURCE, OTHER_COMMIT, Digest.of(b"flake.lock"))
    world.publish("alice", "bob", source=source)


@case(1, "it is about aarch64-linux")
def replay_for_another_system(world: World) -> None:
    world.publish("alice", "bob", system="aarch64-linux")


@case(1, "it is about https://forge.example/fork/project, not https://forge.example/owner/project")
def replay_for_another_repository(world: World) -> None:
    source = Source("https://forge.example/fork/project", COMMIT, Digest.of(b"flake.lock"))
    world.publish("alice", "bob", source=source)


@case(1, "carol built something else from this commit")
def dissent(world: World) -> None:
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)


@case(1, "gcc-12.2.0")
def dissent_names_the_store_path(world: World) -> None:
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)


@case(1, "layers   2, 3 of 3 differ")
def dissent_names_the_layers(world: World) -> None:
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)


@case(1, "carol built something else from this commit")
def suppressed_dissent(world: World) -> None:
    """Hidden beside the image itself, it still lies under the commit."""
    world.publish("alice", "bob")
    world.attach(world.bundle(world.sign(world.says("carol", world.other))), world.other)
    world.arguments = []


@case(1, "bob built something else from this commit")
def tie(world: World) -> None:
    world.publish("alice")
    world.publish("bob", image=world.other)


@case(1, "alice built something else from this commit")
def builder_that_says_both(world: World) -> None:
    world.publish("alice", "bob", "carol")
    world.publish("alice", image=world.other)


@case(1, "carol built something else from this commit")
def dissent_in_no_log(world: World) -> None:
    """A dissenter cannot be silenced by losing its proof."""
    world.publish("alice", "bob")
    world.attach(world.sign(world.says("carol", world.other)).bundle, world.other)


@case(0, "quorum met")
def dissent_of_a_stranger(world: World) -> None:
    world.publish("alice", "bob")
    said = world.says("mallory", world.other)
    world.attach(world.bundle(world.sign(said, "mallory")), world.other)


@case(1, "1 of the 2 builders wanted agree")
def stranger_signs(world: World) -> None:
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("mallory"), "mallory")))


@case(1, "is signed by none of the trusted keys")
def stranger_signs_as_a_builder(world: World) -> None:
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("bob"), "mallory")))


@case(1, "it names the builder 'bob', but alice signed it")
def forged_builder_id(world: World) -> None:
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("bob"), "alice")))


@case(1, "it was built from a tree with changes that no commit holds")
def dirty_tree(world: World) -> None:
    source = Source(SOURCE, COMMIT, Digest.of(b"flake.lock"), dirty=True)
    world.publish("alice", "bob", source=source)


@case(1, "bob does not build for x86_64-linux")
def system_not_granted(world: World) -> None:
    world.head["systems"] = '["x86_64-linux", "aarch64-linux"]'
    world.quorum["threshold"] = "2"
    world.builders["bob"]["systems"] = '["aarch64-linux"]'
    world.publish("alice", "bob")


@case(1, "alice was revoked at 2020-01-01 00:00 UTC, and no log or timestamp proves")
def revoked_builder(world: World) -> None:
    world.builders["alice"]["revokedAt"] = "2020-01-01T00:00:00Z"
    world.publish("alice", "bob")


@case(1, "alice was revoked at 2020-01-01 00:00 UTC")
def revoked_builder_that_backdates(world: World) -> None:
    """Its own word on the time proves nothing."""
    world.builders["alice"]["revokedAt"] = "2020-01-01T00:00:00Z"
    early = "2019-01-01T00:00:00Z"
    world.publish("alice", started_on=early, finished_on=early)
    world.publish("bob")


@case(0, "quorum met: 2 builders agree (alice, bob)")
def builder_revoked_in_the_future(world: World) -> None:
    world.builders["alice"]["revokedAt"] = "2125-01-01T00:00:00Z"
    world.publish("alice", "bob")


@case(0, "quorum met: 2 builders agree (alice, bob)")
def dissent_of_a_revoked_builder(world: World) -> None:
    world.builders["carol"]["revokedAt"] = "2020-01-01T00:00:00Z"
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)


@case(1, "alice counts from 2125-01-01 00:00 UTC on")
def builder_before_its_time(world: World) -> None:
    world.builders["alice"]["notBefore"] = "2125-01-01T00:00:00Z"
    world.publish("alice", "bob")


@case(
    1, "alice counts from 2026-03-01 00:00 UTC on, and this says of itself that it is of 2026-01-31"
)
def builder_before_its_time_by_its_own_word(world: World) -> None:
    """No log says when it was signed, and it says itself that it is too old."""
    world.builders["alice"]["notBefore"] = "2026-03-01T00:00:00Z"
    world.publish("alice", "bob")


@case(1, "shares an attribute with one that is counted")
def shared_operator_in_another_spelling(world: World) -> None:
    """Full-width, in capitals, with a blank and a sign that cannot be seen: one operator."""
    world.builders["alice"]["operator"] = '"acme ltd"'
    world.builders["bob"]["operator"] = '"\uff21CME\u200b  Ltd "'
    world.publish("alice", "bob")


@case(1, "agrees     bob, but shares an attribute with one that is counted")
def shared_operator(world: World) -> None:
    world.builders["bob"]["operator"] = world.builders["alice"]["operator"]
    world.publish("alice", "bob")


@case(1, "2 of its store paths were not built by its builder, as the policy demands")
def substituted_where_built_is_demanded(world: World) -> None:
    world.built["requireBuiltHere"] = "true"
    world.publish("alice", "bob", paths=PathCounts(0, 2, 0, 0, (KeyCount("cache.example-1", 2),)))


@case(1, "1 of its store paths were not built by its builder")
def unexplained_where_built_is_demanded(world: World) -> None:
    world.built["requireBuiltHere"] = "true"
    world.publish("alice", "bob", paths=PathCounts(1, 0, 0, 1))


@case(1, "it was built with sandbox = false")
def no_sandbox_where_demanded(world: World) -> None:
    world.built["requireSandbox"] = "true"
    world.publish("alice", "bob", nix=NixFacts("2.28.3", (), "false"))


@case(1, "1 of its layers were taken from elsewhere")
def reused_layers_where_refused(world: World) -> None:
    world.built["refuseReusedLayers"] = "true"
    reused = (world.image.layers[0].digest,)
    world.publish("alice", "bob", reused_layers=reused)


@case(1, "bob built something else from this commit")
def same_image_other_nar_hash(world: World) -> None:
    world.publish("alice")
    world.publish("bob", nar_hash=world.other.spec.nar_hash)


@case(1, "bob built something else from this commit")
def same_image_layers_swapped(world: World) -> None:
    world.publish("alice")
    layers = (world.image.layers[1], world.image.layers[0], world.image.layers[2])
    world.publish("bob", layers=layers)


@case(1, "bob built something else from this commit")
def same_image_other_diff_id(world: World) -> None:
    first, *rest = world.image.layers
    world.publish("alice")
    world.publish("bob", layers=(replace(first, diff_id=rest[0].diff_id), *rest))


@case(1, "alice, bob built something else from this commit")
def attestation_of_another_image_attached_here(world: World) -> None:
    for name in ("alice", "bob"):
        world.attach(world.bundle(world.sign(world.says(name, world.other))))


@case(1, "1 of the 2 builders wanted agree")
def new_key_of_an_old_builder(world: World) -> None:
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("bob"), KeySigner.generate())))


ROOTS, OTHER_ROOTS = Digest.of(b"roots"), Digest.of(b"other roots")


@case(0, f"roots      {ROOTS}, stated by alice, carol")
def roots_stated_alike_or_not_at_all(world: World) -> None:
    world.publish("alice", "carol", roots_digest=ROOTS)
    world.publish("bob")


@case(1, "CHECKED AND FALSE: carol got this image from other trust roots")
def roots_stated_otherwise(world: World) -> None:
    world.publish("alice", "bob", roots_digest=ROOTS)
    world.publish("carol", roots_digest=OTHER_ROOTS)


@case(1, "look     nix-seed roots . in a checkout of the commit prints the right digest")
def roots_stated_otherwise_and_what_to_do(world: World) -> None:
    world.publish("alice", "bob", roots_digest=ROOTS)
    world.publish("carol", roots_digest=OTHER_ROOTS)


@case(1, f"it states the trust roots {OTHER_ROOTS}, and not as alice, bob: {ROOTS}")
def roots_stated_otherwise_in_no_log(world: World) -> None:
    """As with another image, a dissenter cannot be silenced by losing its proof."""
    world.publish("alice", "bob", roots_digest=ROOTS)
    world.attach(world.sign(world.says("carol", roots_digest=OTHER_ROOTS)).bundle)


@case(1, "alice, bob got this image from other trust roots")
def roots_stated_otherwise_by_equals(world: World) -> None:
    """Nobody can tell which of two is right: neither is believed."""
    world.publish("alice", roots_digest=ROOTS)
    world.publish("bob", roots_digest=OTHER_ROOTS)
    world.publish("carol")


@case(1, "alice, bob, carol got this image from other trust roots")
def roots_stated_otherwise_by_one_operator(world: World) -> None:
    """Two builders of one operator put nobody else in the wrong."""
    world.builders["bob"]["operator"] = world.builders["alice"]["operator"]
    world.publish("alice", "bob", roots_digest=OTHER_ROOTS)
    world.publish("carol", roots_digest=ROOTS)


@case(1, "alice got this image from other trust roots")
def builder_that_states_two_roots(world: World) -> None:
    world.publish("alice", "bob", "carol", roots_digest=ROOTS)
    world.publish("alice", roots_digest=OTHER_ROOTS)


@case(1, "carol built something else from this commit\n")
def roots_of_another_image(world: World) -> None:
    """What another image rests on says nothing of this one."""
    world.publish("alice", "bob", roots_digest=ROOTS)
    world.publish("carol", image=world.other, roots_digest=OTHER_ROOTS)


@case(0, "quorum met: 2 builders agree (alice, bob)")
def roots_stated_otherwise_by_a_stranger(world: World) -> None:
    world.publish("alice", "bob", roots_digest=ROOTS)
    said = world.says("mallory", roots_digest=OTHER_ROOTS)
    world.attach(world.bundle(world.sign(said, "mallory")))


@case(0, "quorum met: 2 builders agree (alice, bob)")
def roots_stated_otherwise_of_another_commit(world: World) -> None:
    world.publish("alice", "bob", roots_digest=ROOTS)
    source = Source(SOURCE, OTHER_COMMIT, Digest.of(b"flake.lock"))
    world.publish("carol", source=source, roots_digest=OTHER_ROOTS)


@case(0, "quorum met: 2 builders agree (alice, bob)")
def roots_stated_otherwise_by_a_revoked_builder(world: World) -> None:
    world.builders["carol"]["revokedAt"] = "2020-01-01T00:00:00Z"
    world.publish("alice", "bob", roots_digest=ROOTS)
    world.publish("carol", roots_digest=OTHER_ROOTS)
