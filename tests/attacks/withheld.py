"""Attacks by what of a ledger is shown: hidden, gone, altered, forgotten."""

from __future__ import annotations

from attacks.promoted import Forged, PromotedWorld, promotion_case
from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.formats.oci.manifest import Descriptor, Manifest
from nix_seed.release.records import attach_record
from support.trust import COMMIT

NONE = f"no promotion record of {COMMIT} was found"
BACKDOOR = "alice, bob built something else from this commit"


@promotion_case(1, NONE)
def record_withheld(world: PromotedWorld) -> None:
    done = world.honest()
    world.hide(COMMIT.key)
    world.hide(done.predicate.index)


@promotion_case(1, NONE)
def record_hidden_under_the_commit_only(world: PromotedWorld) -> None:
    """That is where verifiers look; who hides it there has unpublished it for them."""
    world.honest()
    world.hide(COMMIT.key)


@promotion_case(0, "promoted by rita under root sha256:")
def record_hidden_everywhere_but_under_the_commit(world: PromotedWorld) -> None:
    done = world.honest()
    world.hide(done.predicate.index)
    for subject in previous_of(done):
        world.hide(subject)


@promotion_case(3, "is listed as a referrer of")
def record_listed_and_not_there(world: PromotedWorld) -> None:
    """What cannot be read may have been another root."""
    world.honest()
    [place] = [m for m in world.listed(COMMIT.key).manifests if is_record(world, m)]
    (world.directory / "blobs/sha256" / place.digest.hex).unlink()


@promotion_case(3, "is listed as a referrer of")
def second_record_listed_and_not_there(world: PromotedWorld) -> None:
    """One that can be read stands, and yet: a conflict may be what was taken away."""
    world.honest()
    before = world.listed(COMMIT.key).manifests
    world.publish_record(world.planned(world.backdoored), "rita")
    [place] = [m for m in world.listed(COMMIT.key).manifests if m not in before]
    (world.directory / "blobs/sha256" / place.digest.hex).unlink()


@promotion_case(3, "no Sigstore root to judge it by was given")
def second_record_that_nobody_can_judge(world: PromotedWorld) -> None:
    """By a keyless promoter, without a root to judge certificates by: it may be a conflict."""
    from attacks.keyless import SUBJECT, Keyless
    from support.private_sigstore import ISSUER

    keys = {name: dict(builder) for name, builder in world.builders.items()}
    keyless = Keyless(world)
    world.builders = keys
    world.quorum["logs"] = "1"
    world.sigstore.clear()
    world.promoters["kim"] = {
        "issuer": f'"{ISSUER}"',
        "subject": f'"{SUBJECT.format("kim")}"',
    }
    world.honest()
    plan = world.planned(world.backdoored)
    bundle = keyless.sigstore.bundle(plan.payload, subject=SUBJECT.format("kim"))
    attach_record(world.store, plan.predicate, 1, [canonical_json.dumps(bundle)])


@promotion_case(1, NONE)
def record_altered_in_the_store(world: PromotedWorld) -> None:
    world.honest()
    [place] = [m for m in world.listed(COMMIT.key).manifests if is_record(world, m)]
    manifest = Manifest.parse(read(world, place.digest), "x")
    path = world.directory / "blobs/sha256" / manifest.layers[0].digest.hex
    path.write_bytes(path.read_bytes().replace(b"payload", b"PAYLOAD", 1))


@promotion_case(1, f"this machine saw {COMMIT} promoted under the root")
def honest_record_withheld_after_it_was_seen(world: PromotedWorld) -> None:
    """The registry swaps one release for another, both signed: memory tells."""
    done = world.honest()
    before = world.run(*world.command())
    assert before.code == 0, before.printed
    world.hide(COMMIT.key)
    world.hide(done.digest)
    for name in ("alice", "bob"):
        for image in world.backdoored.values():
            world.attest(image, name)
    world.publish_record(world.planned(world.backdoored), "rita")


@promotion_case(1, "verdict: CHECKED AND FALSE: the log log rolled back")
def log_that_forgets_the_record(world: PromotedWorld) -> None:
    import shutil

    world.attest_all()
    shutil.copytree(world.log.directory / "public", world.root / "before")
    world.promote()
    before = world.run(*world.command())
    assert before.code == 0, before.printed
    shutil.rmtree(world.log.directory / "public")
    shutil.copytree(world.root / "before", world.log.directory / "public")


def previous_of(done: Forged) -> tuple[Digest, ...]:
    from nix_seed.formats.intoto.statement import first_key

    return done.predicate.previous or (first_key(done.predicate.repository),)


def read(world: PromotedWorld, digest: Digest) -> bytes:
    return (world.directory / "blobs/sha256" / digest.hex).read_bytes()


def is_record(world: PromotedWorld, item: Descriptor) -> bool:
    said = Manifest.parse(read(world, item.digest), "x").annotations
    return said.get("dev.sigstore.bundle.predicateType") == "urn:nix-seed:promotion:v1"
