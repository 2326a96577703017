"""Policies that are none: they could never be met, or always would be."""

from __future__ import annotations

from attacks.cases import case
from support.trust import World


def all_published(world: World) -> None:
    world.publish("alice", "bob", "carol")


@case(2, "threshold is 0: every image would pass")
def threshold_zero(world: World) -> None:
    all_published(world)
    world.quorum["threshold"] = "0"


@case(2, "threshold is -1")
def threshold_negative(world: World) -> None:
    world.quorum["threshold"] = "-1"


@case(2, "threshold must be a whole number")
def threshold_true(world: World) -> None:
    all_published(world)
    world.quorum["threshold"] = "true"


@case(2, "threshold is 4, but only 3 builders distinct in operator")
def threshold_above_the_builders(world: World) -> None:
    world.quorum["threshold"] = "4"


@case(2, "threshold is 3, but only 2 builders distinct in operator")
def threshold_above_the_operators(world: World) -> None:
    world.quorum["threshold"] = "3"
    world.builders["bob"]["operator"] = world.builders["alice"]["operator"]


@case(2, "two builders have one signer")
def one_key_under_two_names(world: World) -> None:
    world.publish("alice")
    world.builders["bob"]["key"] = world.builders["alice"]["key"]


@case(2, "two builders have one signer")
def one_key_in_two_spellings(world: World) -> None:
    """The same key with its point compressed: other text, other DER, one key."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    key = load_pem_public_key(world.keys["alice"].public_key.pem)
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    # SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING }, by hand.
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    import base64

    text = base64.b64encode(head + point).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{text[:64]}\n{text[64:]}\n-----END PUBLIC KEY-----"
    world.builders["bob"]["key"] = f'"""\n{pem}\n"""'
    world.publish("alice")


@case(2, "two builders have the id")
def two_builders_of_one_id(world: World) -> None:
    world.builders["Alice"] = world.builders.pop("bob")


@case(2, "two builders have one signer")
def one_identity_under_two_issuer_spellings(world: World) -> None:
    for name, issuer in (("alice", "https://issuer.example"), ("bob", "https://Issuer.example/")):
        world.builders[name] = {
            "issuer": f'"{issuer}"',
            "subject": '"https://issuer.example/workflow"',
            "operator": f'"{name}"',
        }


@case(2, "the policy expired on 2020-01-01 00:00 UTC")
def expired_policy(world: World) -> None:
    all_published(world)
    world.head["expires"] = "2020-01-01T00:00:00Z"


@case(2, "the policy needs expires")
def policy_without_end(world: World) -> None:
    del world.head["expires"]


@case(2, "expires must be a time with its zone")
def policy_of_a_time_without_zone(world: World) -> None:
    world.head["expires"] = "2126-01-01T00:00:00"


@case(2, "[quorum] has no key 'treshold'")
def mistyped_demand(world: World) -> None:
    world.quorum["treshold"] = "3"


@case(2, "the policy demands 2 logs and lists 1")
def more_logs_than_there_are(world: World) -> None:
    world.quorum["logs"] = "2"


@case(2, "one log would count as two")
def one_log_under_two_urls(world: World) -> None:
    world.quorum["logs"] = "2"
    again = {"id": '"mirror"', "origin": '"mirror.example"', "url": '"https://mirror.example"'}
    world.logs.append(world.logs[0] | again)
    all_published(world)


@case(2, "the policy demands 1 witness and lists 0")
def more_witnesses_than_there_are(world: World) -> None:
    world.quorum["witnesses"] = "1"


@case(2, "alice has no operator, by which builders must be distinct")
def builder_of_no_operator(world: World) -> None:
    del world.builders["alice"]["operator"]


@case(2, "'owner' is no attribute of builders")
def distinct_in_nothing_known(world: World) -> None:
    world.quorum["distinct"] = '["owner"]'


@case(2, "say either issuer and subject, or key")
def builder_with_key_and_identity(world: World) -> None:
    world.builders["alice"] |= {"issuer": '"https://i"', "subject": '"s"'}


@case(2, "bob is revoked before it begins")
def builder_without_a_time(world: World) -> None:
    world.builders["bob"] |= {
        "notBefore": "2026-01-01T00:00:00Z",
        "revokedAt": "2025-01-01T00:00:00Z",
    }


@case(2, "epoch must be 1 or more")
def epoch_zero(world: World) -> None:
    world.head["epoch"] = "0"


@case(2, "version must be 1")
def policy_of_the_future(world: World) -> None:
    world.head["version"] = "2"


@case(2, "is not valid TOML")
def key_given_twice(world: World) -> None:
    world.head["epoch"] = "1\nepoch = 2"


@case(2, "not a public key in PEM")
def builder_with_a_broken_key(world: World) -> None:
    world.builders["alice"]["key"] = '"AAAA"'
