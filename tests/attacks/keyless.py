"""Attacks by certificates: whose they are, when they were good, and what proves it."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

from attacks.cases import case
from nix_seed.formats.intoto.statement import build_statement
from support.certificates import malformed_certificates
from support.private_sigstore import ISSUER, PrivateSigstore
from support.trust import World

SUBJECT = "https://forge.example/{}/project/.ci/seed.yml@refs/heads/main"
WORKFLOW = "https://forge.example/{}/project/.github/workflows/seed.yml@refs/heads/main"
ENDED = "validation failed: cert is not valid at validation time"
SHORT = "1 of the 2 builders wanted agree"


class Keyless:
    """Makes every builder of *world* keyless, and signs as any of them."""

    def __init__(self, world: World, subject: str = SUBJECT) -> None:
        self.world = world
        self.subject = subject
        self.sigstore = PrivateSigstore(world.root / "sigstore")
        (world.root / "root.json").write_bytes(self.sigstore.trusted_root())
        world.sigstore["trustedRoot"] = '"root.json"'
        # Sigstore's own log entry is judged with the certificate, by the trusted root.
        world.quorum["logs"] = "0"
        for name, builder in world.builders.items():
            del builder["key"]
            builder |= {"issuer": f'"{ISSUER}"', "subject": f'"{subject.format(name)}"'}

    def bundle(self, name: str, by: PrivateSigstore | None = None, **how: Any) -> dict[str, Any]:
        payload = build_statement(self.world.says(name), "forge.example").dump()
        return (by or self.sigstore).bundle(payload, subject=self.subject.format(name), **how)

    def publish(self, *names: str, **how: Any) -> None:
        for name in names:
            self.world.attach(json.dumps(self.bundle(name, **how)).encode())


@case(0, "quorum met: 2 builders agree (alice, bob)")
def keyless_builders(world: World) -> None:
    Keyless(world).publish("alice", "bob")


@case(0, "quorum met: 2 builders agree (alice, bob)")
def workflows_each_in_its_own_repository(world: World) -> None:
    keyless = Keyless(world, WORKFLOW)
    for name in ("alice", "bob"):
        keyless.publish(name, repository=f"https://forge.example/{name}/project")


@case(1, "for https://forge.example/mallory/project, who is not trusted")
def workflow_that_a_strangers_repository_calls(world: World) -> None:
    """Its certificate has bob's subject: where others may call a workflow, everyone's job has."""
    keyless = Keyless(world, WORKFLOW)
    keyless.publish("alice", repository="https://forge.example/alice/project")
    keyless.publish("bob", repository="https://forge.example/mallory/project")


@case(1, SHORT)
def one_identity_with_many_certificates(world: World) -> None:
    """Each run has a key and a certificate of its own; it is one voice all the same."""
    Keyless(world).publish("alice", "alice", "alice")


@case(1, "who is not trusted")
def same_subject_from_another_issuer(world: World) -> None:
    keyless = Keyless(world)
    keyless.publish("alice")
    keyless.publish("bob", issuer="https://issuer.example.evil")


@case(1, "who is not trusted")
def another_subject_from_the_same_issuer(world: World) -> None:
    keyless = Keyless(world)
    keyless.publish("alice")
    payload = build_statement(world.says("bob"), "forge.example").dump()
    other = SUBJECT.format("bob").replace("main", "main-of-mine")
    world.attach(json.dumps(keyless.sigstore.bundle(payload, subject=other)).encode())


@case(1, "Sigstore's verifier says: failed to build timestamp certificate chain: " + ENDED)
def signed_after_its_certificate_ended(world: World) -> None:
    keyless = Keyless(world)
    keyless.publish("alice")
    keyless.publish("bob", start=timedelta(hours=-2))


@case(1, "Sigstore's verifier says: failed to build timestamp certificate chain: " + ENDED)
def signed_before_its_certificate_began(world: World) -> None:
    keyless = Keyless(world)
    keyless.publish("alice")
    keyless.publish("bob", start=timedelta(hours=2))


@case(1, "Sigstore's verifier says: failed to build timestamp certificate chain")
def certificate_by_another_authority(world: World) -> None:
    keyless = Keyless(world)
    keyless.publish("alice")
    ours = keyless.sigstore
    theirs = PrivateSigstore(world.root / "theirs", log_key=ours.log_key, ct_key=ours.ct_key)
    theirs.root = ours.root  # the true timestamp authority: only who vouches for bob is false
    keyless.publish("bob", by=theirs)


@case(1, "Sigstore's verifier says: failed to load bundle: 1 validation error for Bundle")
def signed_timestamp_without_inclusion_proof(world: World) -> None:
    """A timestamp says when, and not that anyone else can see it."""
    keyless = Keyless(world)
    keyless.publish("alice")
    value = keyless.bundle("bob")
    del value["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]
    world.attach(json.dumps(value).encode())


@case(1, "bundle must contain an inclusion promise or signed timestamp(s)")
def inclusion_proof_without_a_time(world: World) -> None:
    """Nothing then says that the certificate was good when it was used."""
    keyless = Keyless(world)
    keyless.publish("alice")
    value = keyless.bundle("bob")
    del value["verificationMaterial"]["timestampVerificationData"]
    world.attach(json.dumps(value).encode())


@case(3, "no Sigstore root to judge it by was given")
def keyless_without_a_root(world: World) -> None:
    Keyless(world).publish("alice", "bob")
    world.sigstore.clear()


@case(0, "quorum met: 2 builders agree (alice, bob)")
def certificates_that_no_library_reads(world: World) -> None:
    """Each fails in a way of its own. None is a builder's, and none leaves the others open."""
    keyless = Keyless(world)
    keyless.publish("alice", "bob")
    for der in malformed_certificates().values():
        bundle = keyless.bundle("carol")
        bundle["verificationMaterial"]["certificate"]["rawBytes"] = base64.b64encode(der).decode()
        world.attach(json.dumps(bundle).encode())
