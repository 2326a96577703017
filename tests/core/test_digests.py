from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import example, given, strategies as st

from nix_seed.core.digests import DiffID, Digest, NarHash, decode_nix32, encode_nix32
from nix_seed.core.errors import InputError
from support.distribution import nix_env
from support.programs import need, run

HEX = hashlib.sha256(b"a").hexdigest()
RAW = st.binary(min_size=32, max_size=32)


def test_the_three_types_are_never_equal() -> None:
    values = [Digest(HEX), DiffID(HEX), NarHash(HEX)]
    assert len(set(values)) == 3
    for one in values:
        for other in values:
            assert (one == other) is (one is other)
    with pytest.raises(TypeError):
        assert Digest(HEX) < DiffID(HEX)


@pytest.mark.parametrize("text", ["", HEX.upper(), HEX[1:], HEX + "0", HEX[1:] + "g", HEX + "\n"])
def test_only_lower_case_hex_is_a_digest(text: str) -> None:
    for kind in (Digest, DiffID, NarHash):
        with pytest.raises(InputError, match="is not a SHA-256 in lower-case hex"):
            kind(text)


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        f"sha512:{HEX}",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256-{HEX}",
        f"SHA256:{HEX}",
        "sha256:",
    ],
)
def test_a_digest_has_one_spelling(text: str) -> None:
    with pytest.raises(InputError, match="is not a digest of the form sha256:<64 hex digits>"):
        Digest.parse(text)


@given(RAW)
def test_every_spelling_of_a_nar_hash_is_read(raw: bytes) -> None:
    value = NarHash(raw.hex())
    spelled = [str(value), value.nix32, f"sha256:{raw.hex()}"]
    spelled.append("sha256:" + base64.b64encode(raw).decode())
    assert {NarHash.parse(text) for text in spelled} == {value}
    assert value.raw == raw
    assert Digest.parse(str(Digest(raw.hex()))).hex == value.hex
    assert type(DiffID.parse(f"sha256:{raw.hex()}")) is DiffID


@given(st.text() | st.text("0123456789abcdfghijklmnpqrsvwxyz", min_size=51, max_size=53))
@example("sha256:" + "z" * 52)
@example("sha256-" + base64.b64encode(bytes(31)).decode())
@example("sha256-" + "A" * 42 + "B=")
@example("sha256-" + "A" * 43 + "=\n")
@example(HEX)
def test_nothing_else_is_a_nar_hash(text: str) -> None:
    for spelled in (text, "sha256:" + text, "sha256-" + text):
        try:
            value = NarHash.parse(spelled)
        except InputError:
            continue
        again = {str(value), value.nix32, f"sha256:{value.hex}", str(value).replace("-", ":", 1)}
        assert spelled in again


@given(st.binary(max_size=40))
def test_base_32_has_one_spelling(raw: bytes) -> None:
    assert decode_nix32(encode_nix32(raw), len(raw)) == raw


@pytest.mark.parametrize(
    ("text", "size"), [("z", 1), ("e0", 1), ("0" * 53, 32), ("z" * 52, 32), ("00", 2), ("é0", 1)]
)
def test_base_32_that_nobody_writes_is_refused(text: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"in base 32|not found"):
        decode_nix32(text, size)


def test_spellings_are_those_of_nix() -> None:
    need("nix")
    env = nix_env()
    for data in (b"", b"a", b"nix-seed"):
        value = NarHash.of(data)
        typed = ("--type", "sha256", value.hex)
        old = run(need("nix-hash"), "--type", "sha256", "--to-base32", value.hex, env=env)
        assert (
            old.decode().strip() == encode_nix32(value.raw) == value.nix32.removeprefix("sha256:")
        )
        assert (
            run("nix", "hash", "to-base32", *typed, env=env).decode().strip()
            == old.decode().strip()
        )
        assert run("nix", "hash", "to-sri", *typed, env=env).decode().strip() == str(value)
        plain = run("nix", "hash", "to-base64", *typed, env=env).decode().strip()
        assert NarHash.parse("sha256:" + plain) == value
