"""Keys, addresses, what is signed, and signatures in files: no chain is needed for any of these."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account.messages import _hash_eip191_message
from eth_utils.crypto import keccak
from hypothesis import given, strategies as st

from nix_seed.core.errors import CheckedFalse, InputError
from nix_seed.evm.signatures import (
    BuilderSet,
    Domain,
    EvmBuilder,
    EvmKey,
    EvmSignature,
    ReleaseMessage,
    Signed,
    collect,
    read_address,
    signable,
    typed_data,
)
from support.evm import release

# The key and address of EIP-155's and EIP-712's own examples.
SECRET = "0x" + "46" * 32
ADDRESS = "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"
CONTRACT = "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"
DOMAIN = Domain(1, CONTRACT)
CHEAP = 2


def key_file(path: Path) -> EvmKey:
    path.write_text(SECRET + "\n")
    return EvmKey.open(path)


@pytest.fixture
def key(tmp_path: Path) -> EvmKey:
    return key_file(tmp_path / "alice.hex")


def test_a_hex_file_is_a_key(key: EvmKey) -> None:
    assert key.address == ADDRESS


def test_a_keystore_is_read_with_its_passphrase_only(key: EvmKey, tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    path.write_bytes(key.keystore("correct horse", CHEAP))
    assert EvmKey.open(path, "correct horse").address == ADDRESS
    with pytest.raises(InputError, match="has a passphrase") as raised:
        EvmKey.open(path)
    assert raised.value.hint == "put it into the environment variable NIX_SEED_KEY_PASSPHRASE"
    with pytest.raises(InputError, match=r"^the passphrase of .*alice\.json is wrong$"):
        EvmKey.open(path, "battery staple")


def test_a_keystore_of_another_program_is_read(tmp_path: Path) -> None:
    """The vector of the Web3 Secret Storage Definition, version 3, with PBKDF2."""
    value = {
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
            "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "kdf": "pbkdf2",
            "kdfparams": {
                "c": 262144,
                "dklen": 32,
                "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
            },
            "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3,
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps(value))
    key = EvmKey.open(path, "testpassword")
    wanted = tmp_path / "wanted"
    wanted.write_text("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d")
    assert key.address == EvmKey.open(wanted).address


def test_a_new_key_is_encrypted_and_never_overwritten(tmp_path: Path) -> None:
    key, path = EvmKey.generate(), tmp_path / "new.json"
    with pytest.raises(InputError, match="not written without a passphrase"):
        key.write(path, None)
    assert not path.exists()
    key.write(path, "correct horse")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert EvmKey.open(path, "correct horse").address == key.address
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        key.write(path, "correct horse")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 3}', '{"version": 3, "crypto": 7}', "0x1234", SECRET + "00",
     "00" * 32, "ff" * 32],
)  # fmt: skip
def test_files_that_are_no_keys_are_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "no.key"
    path.write_text(text)
    with pytest.raises(InputError, match=r"no\.key") as raised:
        EvmKey.open(path, "any")
    if len(text) > 10:
        assert text not in f"{raised.value.message} {raised.value.hint} {raised.value.detail}"


def test_a_key_does_not_show_itself(key: EvmKey) -> None:
    for shown in (repr(key), str(key), f"{key!r}"):
        assert shown == f"EvmKey({ADDRESS})"
    assert not hasattr(key, "__dict__")


def test_addresses() -> None:
    assert read_address(ADDRESS, "x") == ADDRESS
    assert read_address(ADDRESS.lower(), "x") == ADDRESS
    assert read_address("0x" + ADDRESS[2:].upper(), "x") == ADDRESS
    wrong = ADDRESS.replace("d8A6", "d8a6")
    with pytest.raises(InputError) as raised:
        read_address(wrong, "builder bob")
    assert raised.value.message == (
        f"builder bob: the capitals of {wrong} are a checksum, and it is wrong"
    )
    for text in ("", "0x", "0x12", ADDRESS[2:], ADDRESS + "0", "0x" + "g" * 40, "0X" + ADDRESS[2:]):
        with pytest.raises(InputError, match="is no address: 0x and 40 hex digits are"):
            read_address(text, "x")


def builder(name: str, number: int) -> EvmBuilder:
    return EvmBuilder.read(name, f"0x{number:040x}")


def test_sets_are_ordered_and_those_that_are_none_refused() -> None:
    a, b = builder("a", 2), builder("b", 1)
    assert BuilderSet.propose([a, b], 1, 1).builders == (b, a)
    cases: list[tuple[list[EvmBuilder], int, int, str]] = [
        ([], 1, 1, "0 builders: a set has 1 to 32"),
        ([builder(str(i), i + 1) for i in range(33)], 1, 1, "33 builders: a set has 1 to 32"),
        (
            [a, builder("c", 2)],
            1,
            1,
            f"two builders have the account {a.account}: they would be one",
        ),
        ([a, builder("a", 3)], 1, 1, "two builders have the id a: they would be one"),
        ([a, builder("z", 0)], 1, 1, "the zero address is nobody's account"),
        ([a, b], 0, 1, "a threshold of 0 of 2 builders"),
        ([a, b], 3, 1, "a threshold of 3 of 2 builders"),
        ([a, b], 1, 0, "0 is no epoch: the first is 1"),
    ]
    for members, threshold, epoch, message in cases:
        with pytest.raises(InputError) as raised:
            BuilderSet.propose(members, threshold, epoch)
        assert raised.value.message == message


@pytest.mark.parametrize("name", ["", "x" * 33, "ü" * 17, "a\nb", " a", "a\u0301", "\ud800", "a\0"])
def test_ids_that_are_none(name: str) -> None:
    with pytest.raises(InputError):
        EvmBuilder.read(name, ADDRESS)


def test_ids_on_chain_are_shown_harmlessly() -> None:
    assert EvmBuilder.from_chain(ADDRESS, b"alice".ljust(32, b"\0")).id == "alice"
    shown = EvmBuilder.from_chain(ADDRESS, b"\x1b[2J\xff".ljust(32, b"\0")).id
    assert shown.isprintable()


def hashed(domain: Domain, content: Signed) -> bytes:
    """EIP-712 as its text has it, by hand: what the contract computes."""
    separator = keccak(
        keccak(
            text="EIP712Domain(string name,string version,"
            "uint256 chainId,address verifyingContract)"
        )
        + keccak(text="nix-seed ledger")
        + keccak(text="1")
        + domain.chain_id.to_bytes(32)
        + bytes(12)
        + bytes.fromhex(domain.address[2:])
    )
    if isinstance(content, ReleaseMessage):
        entry = content.entry
        struct = keccak(
            keccak(text="Publish(bytes32 commitKey,bytes32 root,bytes32 record,uint256 epoch)")
            + entry.commit_key.raw
            + entry.root.raw
            + entry.record.raw
            + content.epoch.to_bytes(32)
        )
    else:
        kind = "Builder(address account,bytes32 id)"
        members = b"".join(
            keccak(keccak(text=kind) + each.number.to_bytes(32) + each.raw_id)
            for each in content.builders
        )
        struct = keccak(
            keccak(text=f"SetBuilders(Builder[] builders,uint256 threshold,uint256 epoch){kind}")
            + keccak(members)
            + content.threshold.to_bytes(32)
            + content.epoch.to_bytes(32)
        )
    return keccak(b"\x19\x01" + separator + struct)


RELEASE = ReleaseMessage(release("a"), 1)
SET = BuilderSet.propose([EvmBuilder.read("alice", ADDRESS), builder("bob", 7)], 2, 5)


@pytest.mark.parametrize("content", [RELEASE, SET])
def test_what_is_signed_is_eip_712(content: Signed) -> None:
    assert bytes(_hash_eip191_message(signable(DOMAIN, content))) == hashed(DOMAIN, content)


def test_the_signatures_of_the_document(key: EvmKey) -> None:
    """Vectors for other implementations; the same in docs/ledger-evm.md."""
    document = (Path(__file__).parents[2] / "docs/ledger-evm.md").read_text()
    for content in (RELEASE, SET):
        assert f"0x{hashed(DOMAIN, content).hex()}" in document
        assert f"0x{EvmSignature.make(key, DOMAIN, content).raw.hex()}" in document


@pytest.mark.parametrize("content", [RELEASE, SET])
def test_a_file_is_read_as_it_was_written(key: EvmKey, content: Signed) -> None:
    made = EvmSignature.make(key, DOMAIN, content)
    assert EvmSignature.load(made.dump(), "a.json") == made
    assert made.signer == ADDRESS
    assert EvmSignature.make(key, DOMAIN, content) == made, "the same each time"


def alterations(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Every leaf and every object of *value*, each with something else in its place."""
    found: list[tuple[tuple[Any, ...], Any]] = []
    if isinstance(value, dict):
        found.append((path, dict(list(value.items())[1:])))
        for name, member in value.items():
            found += alterations(member, (*path, name))
    elif isinstance(value, list):
        found += [(path, value[1:]), (path, [*value, *value[:1]])]
        for number, member in enumerate(value):
            found += alterations(member, (*path, number))
    elif isinstance(value, str):
        last = "0" if value[-1:] != "0" else "1"
        found += [
            (path, value[:-1] + last),
            (path, value + "0"),
            (path, None),
            (path, value.upper()),
        ]
    else:
        found += [(path, value + 1), (path, str(value)), (path, -1), (path, 1.0), (path, True)]
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def read_or_none(value: Any) -> EvmSignature | None:
    try:
        return EvmSignature.load(json.dumps(value).encode(), "a.json")
    except InputError:
        return None


@pytest.mark.parametrize("content", [RELEASE, SET])
def test_a_file_altered_anywhere_is_refused(key: EvmKey, content: Signed) -> None:
    made = EvmSignature.make(key, DOMAIN, content)
    whole = json.loads(made.dump())
    tried = 0
    for path, new in alterations(whole):
        altered = changed(whole, path, new)
        if altered == whole:
            continue
        # Upper-case hex of the signature is the same bytes.
        assert read_or_none(altered) in (None, made), (path, new)
        tried += 1
    assert tried > 80


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        EvmSignature.load(text, "x")


def test_a_signature_by_another_is_named(key: EvmKey) -> None:
    value = json.loads(EvmSignature.make(key, DOMAIN, RELEASE).dump())
    value["signer"] = CONTRACT
    with pytest.raises(InputError) as raised:
        EvmSignature.load(json.dumps(value).encode(), "a.json")
    assert raised.value.message == (
        f"a.json does not hold: {CONTRACT} is said to have signed, and it recovers to {ADDRESS}"
    )


def test_a_signature_with_a_high_s_is_refused(key: EvmKey) -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    raw = EvmSignature.make(key, DOMAIN, RELEASE).raw
    s = (order - int.from_bytes(raw[32:64])).to_bytes(32)
    with pytest.raises(InputError, match="its s is in the upper half"):
        EvmSignature.check(DOMAIN, RELEASE, raw[:32] + s + bytes([55 - raw[64]]), "it")


def test_signatures_are_collected_by_builder_and_content(key: EvmKey) -> None:
    bob, eve = EvmKey.generate(), EvmKey.generate()
    members = [EvmBuilder.read("alice", key.address), EvmBuilder.read("bob", bob.address)]
    builders = BuilderSet.propose(members, 2, 1)
    make: Callable[[EvmKey], EvmSignature] = lambda k: EvmSignature.make(k, DOMAIN, RELEASE)  # noqa: E731
    pair = [make(bob), make(key)]
    assert {each.signer for each in collect(pair, DOMAIN, RELEASE, builders)} == {
        each.account for each in members
    }
    later = replace(RELEASE, epoch=2)
    for signed, domain, content, told in (
        ([make(key), make(key), make(eve)], DOMAIN, RELEASE, "1 of the 2 .*; missing: bob"),
        (pair, replace(DOMAIN, chain_id=2), RELEASE, "0 of the 2"),
        (pair, replace(DOMAIN, address=ADDRESS), RELEASE, "0 of the 2"),
        ([make(key)], DOMAIN, later, "0 of the 2"),
    ):
        with pytest.raises(CheckedFalse, match=told) as raised:
            collect(signed, domain, content, builders)
        assert raised.value.hint is not None
        assert (eve.address in raised.value.hint) == (len(signed) == 3)


def test_typed_data_is_what_a_wallet_takes() -> None:
    value = typed_data(DOMAIN, RELEASE)
    assert set(value) == {"types", "primaryType", "domain", "message"}
    assert value["domain"] == {
        "name": "nix-seed ledger",
        "version": "1",
        "chainId": 1,
        "verifyingContract": CONTRACT,
    }
