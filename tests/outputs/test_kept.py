"""What a repository lists of a store path, and what Nix is told of it: values alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import InputError
from nix_seed.formats.nix.store_path import PathSignature, StorePath, parse_public_keys
from nix_seed.formats.oci.manifest import Descriptor
from nix_seed.outputs.rules.kept import (
    ANNOTATION,
    MOST_KEPT,
    KeptOutput,
    Stored,
    entry_of,
    read_entries,
    tag_of,
)
from nix_seed.outputs.rules.narinfo import CacheKey, asked_nar, asked_path, nar_url, narinfo

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
PATH = StorePath.parse(f"/nix/store/{HASH}-greeting-1.0")
OTHER = StorePath.parse(f"/nix/store/{HASH[::-1]}-other")
KEPT = KeptOutput(
    path=PATH,
    nar_hash=NarHash("ab" * 32),
    nar_size=128,
    nar=Stored(Digest("cd" * 32), 90),
    bundles=(Stored(Digest("ef" * 32), 2000),),
    commit="12" * 20,
    signer="a key",
    pushed="2026-01-31T12:00:00Z",
    deriver=OTHER,
    references=(OTHER, PATH),
)
CONFIG = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)


def entry(kept: KeptOutput) -> Descriptor:
    return entry_of(kept.manifest(CONFIG).dump(), kept)


def test_an_entry_comes_back_as_it_was_kept() -> None:
    older = replace(KEPT, pushed="2025-12-31T12:00:00Z", nar_hash=NarHash("00" * 32))
    found, troubles = read_entries([entry(older), entry(KEPT)], HASH, "here")
    assert (found, troubles) == ((KEPT, older), ())
    assert tag_of(HASH) == f"out-{HASH}"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"narSize":128', '"narSize":-1', "narSize is negative"),
        ('"narSize":128', '"narSize":"128"', "narSize must be an integer"),
        ('"path":"', '"path":"../', "is not a path in"),
        (HASH + "-greeting", HASH[::-1] + "-another", "is listed under"),
        ("sha256:" + "cd" * 32, "md5:" + "cd" * 16, "is not a digest"),
        ("2026-01-31T12:00:00Z", "yesterday", "is not a time"),
        ('"signer"', '"mood":"good","signer"', "there is no member 'mood'"),
    ],
)
def test_a_bad_entry_is_told_and_hides_no_other(old: str, new: str, words: str) -> None:
    good = entry(KEPT)
    text = good.annotations[ANNOTATION]
    assert old in text
    bad = replace(good, annotations={ANNOTATION: text.replace(old, new)})
    found, troubles = read_entries([bad, good, replace(good, annotations={})], HASH, "here")
    assert found == (KEPT,)
    assert len(troubles) == 2
    assert words in troubles[0].message


def test_a_list_of_thousands_is_not_read_to_its_end() -> None:
    found, troubles = read_entries([entry(KEPT)] * 5000, HASH, "here")
    assert len(found) == MOST_KEPT
    assert "lists more than" in troubles[-1].message


def test_a_narinfo_is_signed_as_nix_wants_it() -> None:
    key = CacheKey("here", Ed25519PrivateKey.from_private_bytes(b"k" * 32))
    text = narinfo(KEPT.info, KEPT.deriver, (KEPT.nar.digest, KEPT.nar.size), key).decode()
    said = dict(line.split(": ", 1) for line in text.splitlines())
    assert said["StorePath"] == str(PATH)
    assert said["References"] == f"{PATH.base_name} {OTHER.base_name}"
    assert (said["Compression"], said["FileSize"], said["NarSize"]) == ("zstd", "90", "128")
    assert said["Deriver"] == OTHER.base_name
    trusted = parse_public_keys([key.public])["here"]
    assert PathSignature.parse(said["Sig"]).verifies(KEPT.info, trusted)
    assert not PathSignature.parse(said["Sig"]).verifies(replace(KEPT.info, nar_size=1), trusted)
    assert asked_nar(f"/{said['URL']}") == (HASH, KEPT.nar.digest)


@pytest.mark.parametrize(
    "url",
    ["/", "/nix-cache-info", f"/{HASH}.narinfo/", f"/../{HASH}.narinfo", f"/{HASH[1:]}.narinfo"],
)
def test_no_other_url_is_a_path(url: str) -> None:
    assert asked_path(url) is None
    assert asked_nar(url) is None


def test_urls_come_back() -> None:
    assert asked_path(f"/{HASH}.narinfo") == HASH
    assert asked_nar("/" + nar_url(PATH, KEPT.nar.digest) + "x") is None
    with pytest.raises(InputError):
        replace(KEPT, pushed="never")
