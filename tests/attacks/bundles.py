"""Attacks by the form of an attestation: envelope, statement, JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from attacks.cases import case
from nix_seed.core import canonical_json
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE, Envelope, build_statement
from support.trust import World


def edited(world: World, edit: Callable[[Any], None]) -> None:
    """Publish alice's bundle, and bob's with its JSON changed after signing."""
    world.publish("alice")
    value = world.bundle(world.sign(world.says("bob"))).to_json()
    edit(value)
    world.attach(canonical_json.dumps(value))


def restated(world: World, edit: Callable[[Any], None]) -> None:
    """Publish alice's bundle, and bob's with its statement changed before signing."""
    world.publish("alice")
    value = json.loads(build_statement(world.says("bob"), "x").dump())
    edit(value)
    signed = world.keys["bob"].sign(PAYLOAD_TYPE, canonical_json.dumps(value))
    world.attach(world.bundle(signed))


def raw_statement(world: World, text: bytes, payload_type: str = PAYLOAD_TYPE) -> None:
    """Publish alice's bundle, and bob's over *text*."""
    world.publish("alice")
    world.attach(world.bundle(world.keys["bob"].sign(payload_type, text)))


def statement(world: World) -> bytes:
    return build_statement(world.says("bob"), "x").dump()


@case(1, "its payload is of type 'application/json'")
def payload_type_confusion(world: World) -> None:
    raw_statement(world, statement(world), "application/json")


@case(1, "the signature is not that of the key it names")
def payload_type_changed_after_signing(world: World) -> None:
    world.publish("alice")
    signed = world.keys["bob"].sign("application/json", statement(world))
    envelope = Envelope(PAYLOAD_TYPE, signed.envelope.payload, signed.envelope.signatures)
    value = world.bundle(signed).to_json()
    world.attach(canonical_json.dumps(value | {"dsseEnvelope": envelope.to_json()}))


@case(1, "predicateType is 'https://slsa.dev/provenance/v1'")
def predicate_type_confusion(world: World) -> None:
    restated(world, lambda value: value.update(predicateType="https://slsa.dev/provenance/v1"))


@case(1, "_type is 'https://in-toto.io/Statement/v0.1'")
def statement_version_confusion(world: World) -> None:
    restated(world, lambda value: value.update(_type="https://in-toto.io/Statement/v0.1"))


@case(1, "key 'system' is given twice")
def duplicate_keys_in_the_statement(world: World) -> None:
    text = statement(world).replace(b'"system":', b'"system":"aarch64-linux","system":', 1)
    raw_statement(world, text)


@case(1, "key 'mediaType' is given twice")
def duplicate_keys_in_the_bundle(world: World) -> None:
    world.publish("alice")
    text = world.bundle(world.sign(world.says("bob"))).dump()
    world.attach(b'{"mediaType":"application/x",' + text[1:])


@case(1, "member 'predicate_type' must be spelled 'predicateType'")
def member_in_another_spelling(world: World) -> None:
    restated(world, lambda value: value.update(predicate_type="urn:nix-seed:build:v1"))


@case(1, "is not a digest of the form sha256:")
def digest_in_upper_case(world: World) -> None:
    def edit(value: Any) -> None:
        value["predicate"]["imageDigest"] = value["predicate"]["imageDigest"].upper()

    restated(world, edit)


@case(1, "is not a digest of the form sha256:")
def digest_downgraded_to_sha1(world: World) -> None:
    def edit(value: Any) -> None:
        value["predicate"]["imageDigest"] = "sha1:" + "0" * 40

    restated(world, edit)


@case(1, "narHash must be spelled sha256-")
def nar_hash_in_another_spelling(world: World) -> None:
    def edit(value: Any) -> None:
        value["predicate"]["narHash"] = world.image.spec.nar_hash.nix32

    restated(world, edit)


@case(1, "sha256 must be a string")
def subject_without_sha256(world: World) -> None:
    def edit(value: Any) -> None:
        value["subject"][0]["digest"] = {"sha512": "0" * 128}

    restated(world, edit)


@case(1, "its subjects are not the image, the narHash and the commit of its predicate")
def subject_and_predicate_disagree(world: World) -> None:
    def edit(value: Any) -> None:
        value["subject"][0]["digest"]["sha256"] = world.other.descriptor.digest.hex

    restated(world, edit)


@case(1, "its subjects are not the image, the narHash and the commit of its predicate")
def further_subject_slipped_in(world: World) -> None:
    def edit(value: Any) -> None:
        value["subject"].append({"name": "", "digest": {"sha256": "0" * 64}})

    restated(world, edit)


@case(1, "the signature is not that of the key it names")
def payload_changed_after_signing(world: World) -> None:
    def edit(value: Any) -> None:
        payload = base64.b64decode(value["dsseEnvelope"]["payload"]).replace(b"linux", b"Linux")
        value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    edited(world, edit)


@case(1, "has 2 signatures, not one")
def second_signature_slipped_in(world: World) -> None:
    def edit(value: Any) -> None:
        value["dsseEnvelope"]["signatures"] *= 2

    edited(world, edit)


@case(1, "payload is not standard base64")
def payload_in_url_safe_base64(world: World) -> None:
    def edit(value: Any) -> None:
        value["dsseEnvelope"]["payload"] += "\n"

    edited(world, edit)


@case(0, "quorum met: 2 builders agree (alice, bob)")
def key_hint_of_another(world: World) -> None:
    """The hint is unsigned: nothing is decided by it."""
    hint = world.keys["mallory"].public_key.hint

    def edit(value: Any) -> None:
        value["verificationMaterial"]["publicKey"]["hint"] = hint

    edited(world, edit)


@case(1, "no bundle version known here")
def unknown_bundle_version(world: World) -> None:
    edited(world, lambda value: value.update(mediaType=value["mediaType"].replace("v0.3", "v9")))


@case(1, "4194304 are the most")
def oversized_bundle(world: World) -> None:
    edited(world, lambda value: value.update(padding="x" * (5 << 20)))


@case(1, "is not valid JSON")
def deeply_nested_bundle(world: World) -> None:
    world.publish("alice")
    world.attach(b"[" * 100_000)


@case(1, "is not valid JSON")
def truncated_bundle(world: World) -> None:
    world.publish("alice")
    world.attach(world.bundle(world.sign(world.says("bob"))).dump()[:-10])


@case(1, "signs an artifact and states nothing about it")
def signature_over_the_bare_image(world: World) -> None:
    def edit(value: Any) -> None:
        del value["dsseEnvelope"]
        digest = base64.b64encode(world.image.descriptor.digest.raw).decode()
        value["messageSignature"] = {
            "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
            "signature": digest,
        }

    edited(world, edit)


@case(1, "holds half a surrogate pair")
def half_a_surrogate_pair(world: World) -> None:
    raw_statement(world, statement(world).replace(b'"name":"x"', b'"name":"\\ud800"', 1))


@case(1, "too large a number")
def number_beyond_a_double(world: World) -> None:
    raw_statement(world, statement(world).replace(b'"built":2', b'"built":1e999', 1))
