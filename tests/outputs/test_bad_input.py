"""Lies about outputs, by name: whatever a repository holds, nothing false reaches Nix."""

from __future__ import annotations

import http.client
import io
import json
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zstandard

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor, Index, MediaType
from nix_seed.outputs.cache import OutputCache
from nix_seed.outputs.clean import clean_outputs, parse_age
from nix_seed.outputs.kept import find_kept, keep
from nix_seed.outputs.rules.kept import ANNOTATION, NAR_TYPE, KeptOutput, Stored, tag_of
from nix_seed.outputs.rules.statement import (
    PREDICATE_TYPE,
    OutputFact,
    OutputsStatement,
    outputs_subject,
)
from nix_seed.outputs.server import CacheServer, serving
from nix_seed.outputs.sign import list_statement, sign_outputs
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.trust.attestations import list_bundle
from support.attestations import put
from support.nars import NarFile, dump, nar_hash
from support.output_scene import BLOB, FACT, HASH, NAR, NAR_HASH, NAR_SIZE, NOW, OTHER, PATH, Scene
from support.output_world import SOURCE

SAID = OutputsStatement(
    source=SOURCE,
    commit=Commit("2" * 40),
    system="x86_64-linux",
    seed=Digest.of(b"seed"),
    builder="alice",
    finished_on="2026-01-31T12:00:00Z",
    outputs=(FACT,),
)
"""What alice says of a commit that built nothing new."""


def answer(cache: OutputCache, url: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask the server as Nix does; the body of a connection that broke is what arrived."""
    with serving(CacheServer(cache)) as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
        connection.request(method, url)
        try:
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.IncompleteRead as error:
            return -1, error.partial
        except ConnectionResetError:  # even the head was still held back
            return -1, b""
        finally:
            connection.close()


def nar_of(cache: OutputCache) -> tuple[int, bytes]:
    text = cache.narinfo(HASH)
    assert text is not None
    url = dict(line.split(": ", 1) for line in text.decode().splitlines())["URL"]
    return answer(cache, f"/{url}")


def test_what_is_kept_is_served(scene: Scene) -> None:
    scene.keep()
    cache = scene.cache()
    assert nar_of(cache) == (200, BLOB)
    assert nar_of(cache) == (200, BLOB)
    status, text = answer(cache, f"/{HASH}.narinfo")
    assert (status, f"NarHash: {NAR_HASH.nix32}\n".encode() in text) == (200, True)
    assert answer(cache, f"/{HASH}.narinfo", "HEAD") == (200, b"")
    assert b"Priority: 10" in answer(cache, "/nix-cache-info")[1]


def test_hints_that_lie_change_nothing(scene: Scene) -> None:
    scene.keep(nar_size=1, references=(OTHER,), deriver=OTHER, signer="root")
    text = (scene.cache().narinfo(HASH) or b"").decode()
    assert f"NarSize: {NAR_SIZE}\n" in text
    assert "References: \n" in text


def test_a_hint_of_another_hash_is_not_the_word(scene: Scene) -> None:
    scene.keep(nar_hash=NarHash("00" * 32))
    assert scene.cache().narinfo(HASH) is None
    assert "nobody keeps the NAR" in scene.reasons


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zstandard.compress(b"".join(dump(NarFile(b"evil")))), "is another NAR"),
        (zstandard.compress(NAR[:-9] + bytes([NAR[-9] ^ 1]) + NAR[-8:]), "is another NAR"),
        (zstandard.compress(NAR + b"\0" * (1 << 20)), "unpacks to more than"),
        (zstandard.compress(NAR[:-8]), "is another NAR"),
        (BLOB[:-5], "is another NAR"),
        (NAR, "is not intact zstd"),
        (BLOB + b"more", "is not intact zstd"),
        (b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + b"\0" * 1000, "is another NAR"),
        (b"", "is another NAR"),
    ],
    ids=[
        "another's",
        "as-long",
        "longer",
        "shorter",
        "cut",
        "plain",
        "trailing",
        "skippable",
        "empty",
    ],
)
@pytest.mark.parametrize("largest", [1 << 18, -1], ids=["ahead", "streamed"])
def test_a_false_nar_never_ends(
    scene: Scene, data: bytes, words: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nix_seed.outputs.cache._SMALL", largest)
    scene.keep(blob=scene.blob(data))
    cache = scene.cache()
    status, body = nar_of(cache)
    assert status == -1 or body == b""
    assert len(body) < max(1, len(data))
    assert words in scene.reasons
    # It is not offered again.
    assert cache.narinfo(HASH) is None


def test_a_bomb_takes_no_memory(scene: Scene) -> None:
    out = io.BytesIO()
    with zstandard.ZstdCompressor(level=1).stream_writer(out, closefd=False) as writer:
        for _ in range(200):
            writer.write(b"\0" * (5 << 20))
    scene.keep(blob=scene.blob(out.getvalue()))
    nar_of(scene.cache())
    assert "unpacks to more than" in scene.reasons


def test_a_blob_altered_on_its_way_never_ends(scene: Scene) -> None:
    scene.keep()
    cache = scene.cache()
    assert nar_of(cache)[0] == 200  # and so it is proved already
    path = scene.root / "kept/blobs/sha256" / Digest.of(BLOB).hex
    path.chmod(0o644)
    path.write_bytes(BLOB[:-1] + bytes([BLOB[-1] ^ 1]))
    status, body = nar_of(cache)
    assert status == -1
    assert len(body) < len(BLOB)


def test_a_good_blob_beside_a_bad_one_is_served(scene: Scene) -> None:
    scene.keep()
    bad = scene.blob(zstandard.compress(b"".join(dump(NarFile(b"evil")))))
    scene.keep(blob=bad, pushed="2027-01-31T12:00:00Z")
    cache = scene.cache()
    assert nar_of(cache)[0] == -1
    assert nar_of(cache) == (200, BLOB)


def test_a_strangers_word_is_none(scene: Scene) -> None:
    scene.keep(bundles=(scene.bundle(signer=scene.mallory),))
    assert scene.cache().narinfo(HASH) is None
    assert "no builder of the policy" in scene.reasons


def test_a_word_on_another_path_is_none(scene: Scene) -> None:
    scene.keep(bundles=(scene.bundle(replace(FACT, path=OTHER)),))
    assert scene.cache().narinfo(HASH) is None


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff" * 100, b'{"mediaType": 1}'])
def test_a_bundle_that_is_none(scene: Scene, text: bytes) -> None:
    stored = put(scene.store, text, BUNDLE_V03)
    scene.keep(bundles=(Stored(stored.digest, stored.size),))
    assert scene.cache().narinfo(HASH) is None
    assert scene.reasons


def test_a_bundle_of_megabytes_is_not_read(scene: Scene) -> None:
    scene.keep(bundles=(Stored(Digest("ab" * 32), 1 << 40),))
    assert scene.cache().narinfo(HASH) is None
    assert "are the most read" in scene.reasons


def test_what_lies_under_a_paths_tag_and_is_no_list(scene: Scene) -> None:
    scene.store.put_manifest(
        KeptOutput(PATH, NAR_HASH, NAR_SIZE, scene.blob(), (scene.bundle(),), "c", "s", NOW)
        .manifest(Descriptor(MediaType.EMPTY, Digest.of(b"{}"), 2))
        .dump(),
        MediaType.MANIFEST,
        tag_of(HASH),
    )
    assert scene.cache().narinfo(HASH) is None
    assert "not a list of outputs" in scene.reasons
    with pytest.raises(CheckedFalse):
        scene.keep()


def test_another_paths_entry_is_told(scene: Scene) -> None:
    scene.keep(replace(FACT, path=OTHER))
    listed = scene.store.get_manifest(tag_of(OTHER.hash_part))
    assert listed is not None
    scene.store.put_manifest(listed.body, MediaType.INDEX, tag_of(HASH))
    assert scene.cache().narinfo(HASH) is None
    assert "is listed under" in scene.reasons


def test_references_that_are_not_there(scene: Scene) -> None:
    scene.keep(replace(FACT, references=(OTHER,)))
    cache = scene.cache()
    cache.held = lambda path: path != OTHER
    assert cache.narinfo(HASH) is None
    assert f"refers to {OTHER}, which is not kept" in scene.reasons
    cache.held = lambda path: True
    assert cache.narinfo(HASH) is not None


@pytest.mark.parametrize("size", [17 << 20, 64 << 20], ids=["large", "huge"])
def test_a_list_of_megabytes_is_not_read(scene: Scene, size: int) -> None:
    scene.keep()
    listed = scene.store.get_manifest(tag_of(HASH))
    assert listed is not None
    body = listed.body[:-1] + b',"annotations":{"x":"' + b"x" * size + b'"}}'
    scene.store.put_manifest(body, MediaType.INDEX, tag_of(HASH))
    start = time.monotonic()
    assert scene.cache().narinfo(HASH) is None
    assert time.monotonic() - start < 5
    assert "bytes" in scene.reasons


def test_more_references_than_there_are_is_no_word(scene: Scene) -> None:
    """A narinfo of megabytes: nobody can have it signed, and so it is not served."""
    many = [StorePath.parse(f"/nix/store/{n:05d}{HASH[5:]}-p") for n in range(10_001)]
    most = replace(FACT, references=tuple(sorted(many[:10_000])))
    scene.keep(most)
    text = scene.cache().narinfo(HASH) or b""
    assert len(text) < 1 << 20
    assert text.count(HASH[5:].encode()) == 10_000 + 2  # and its own, twice
    with pytest.raises(InputError):
        KeptOutput.parse(
            replace_references(scene, [path.base_name for path in many]).encode(), "the entry"
        )


def replace_references(scene: Scene, names: list[str]) -> str:
    """The annotation of what is kept, with other references."""
    scene.keep()
    listed = scene.store.get_manifest(tag_of(HASH))
    assert listed is not None
    entry = json.loads(Index.parse(listed.body, "here").manifests[0].annotations[ANNOTATION])
    return canonical_json.dumps(entry | {"references": names}).decode()


def test_what_was_never_pushed_is_a_plain_miss(scene: Scene) -> None:
    cache = scene.cache()
    assert answer(cache, f"/{HASH}.narinfo")[0] == 404
    assert answer(cache, f"/nar/{HASH}-{'0' * 64}.nar.zst")[0] == 404
    assert answer(cache, "/../../etc/passwd")[0] == 404
    assert scene.reasons == ""


def test_a_blob_of_no_ones_is_not_given_out(scene: Scene) -> None:
    scene.keep()
    secret = scene.blob(b"secret")
    assert answer(scene.cache(), f"/nar/{HASH}-{secret.digest.hex}.nar.zst")[0] == 404


def test_expiry_during_a_job(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nix_seed.outputs.cache._SMALL", -1)
    scene.keep()
    cache = scene.cache()
    assert cache.narinfo(HASH) is not None
    done = clean_outputs(scene.store, datetime.now(UTC) + timedelta(days=400))
    assert (done.dropped, done.kept, done.freed > 0) == (1, 0, True)
    assert nar_of(cache)[1] == b""
    assert cache.narinfo(HASH) is None
    scene.keep()
    assert nar_of(scene.cache()) == (200, BLOB)


def test_the_word_goes_with_the_last_that_it_speaks_of(scene: Scene) -> None:
    """Two outputs of one statement, of which one is pushed again later."""
    facts = (FACT, replace(FACT, path=OTHER))
    commit = Commit("c0ffee" + "0" * 34)
    outputs = tuple(sorted(facts, key=lambda fact: fact.path))
    said = replace(SAID, commit=commit, finished_on=NOW, outputs=outputs)
    (signed,) = sign_outputs(said, scene.alice, [scene.log])
    list_statement(scene.store, signed)
    bundle = put(scene.store, signed.bundles[0], BUNDLE_V03)
    stored, subject = Stored(bundle.digest, bundle.size), outputs_subject(commit).digest
    scene.keep(FACT, bundles=(stored,))
    scene.keep(facts[1], bundles=(stored,), pushed="2026-03-31T12:00:00Z")
    assert clean_outputs(scene.store, datetime(2026, 2, 28, tzinfo=UTC)).dropped == 1
    assert len(scene.store.referrers(subject)) == 1
    assert scene.store.has_blob(bundle.digest)
    assert clean_outputs(scene.store, datetime(2026, 4, 30, tzinfo=UTC)).dropped == 1
    assert scene.store.referrers(subject) == ()
    assert not scene.store.has_blob(bundle.digest)


def test_what_is_new_or_tagged_stays(scene: Scene) -> None:
    scene.keep()
    scene.keep(replace(FACT, path=OTHER), commit="1" * 40)
    soon = datetime.now(UTC) + timedelta(days=400)
    assert clean_outputs(scene.store, datetime(2026, 1, 1, tzinfo=UTC)).dropped == 0
    done = clean_outputs(scene.store, soon, {"1" * 40})
    assert (done.dropped, done.kept) == (1, 1)
    # The blob is the other's as well.
    assert scene.store.has_blob(Digest.of(BLOB))
    assert find_kept(scene.store, OTHER.hash_part).kept


def test_what_a_tagged_commit_left_as_it_was_stays_too(scene: Scene) -> None:
    """It is listed as an earlier commit's, and said of the tagged one."""
    scene.keep()
    scene.keep(replace(FACT, path=OTHER))
    (signed,) = sign_outputs(SAID, scene.alice, [scene.log])
    list_statement(scene.store, signed)
    done = clean_outputs(scene.store, datetime.now(UTC) + timedelta(days=400), {"2" * 40})
    assert (done.dropped, done.kept) == (1, 1)
    assert find_kept(scene.store, HASH).kept
    assert not find_kept(scene.store, OTHER.hash_part).kept


def test_the_word_on_a_commit_that_built_nothing_goes_with_its_age(scene: Scene) -> None:
    """No path's list names it, and what it speaks of was pushed again since."""
    scene.keep(pushed="2026-06-30T12:00:00Z")
    subjects = []
    for commit in (Commit("2" * 40), Commit("3" * 40)):
        (signed,) = sign_outputs(replace(SAID, commit=commit), scene.alice, [scene.log])
        list_statement(scene.store, signed)
        subjects.append(outputs_subject(commit).digest)
    # Of a third commit a list names what is no statement: that stays.
    list_bundle(scene.store, outputs_subject(Commit("4" * 40)), b"{}", PREDICATE_TYPE)
    subjects.append(outputs_subject(Commit("4" * 40)).digest)
    bundles = [Digest.of(each) for each in signed.bundles]

    def listed() -> list[int]:
        return [len(scene.store.referrers(each)) for each in subjects]

    assert clean_outputs(scene.store, datetime(2026, 1, 31, tzinfo=UTC)).dropped == 0
    assert listed() == [1, 1, 1]
    done = clean_outputs(scene.store, datetime(2026, 2, 28, tzinfo=UTC), {"2" * 40})
    assert (done.dropped, done.kept, done.troubles) == (0, 1, ())
    assert listed() == [1, 0, 1]
    assert done.freed
    assert not any(map(scene.store.has_blob, bundles))
    assert nar_of(scene.cache()) == (200, BLOB)


def test_a_list_that_cannot_be_read_is_left_as_it_is(scene: Scene) -> None:
    body = Index((Descriptor(MediaType.MANIFEST, Digest("ab" * 32), 3),)).dump()
    scene.store.put_manifest(body, MediaType.INDEX, tag_of(HASH))
    done = clean_outputs(scene.store, datetime.now(UTC))
    assert (done.dropped, len(done.troubles)) == (0, 1)


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "1y", "d", "99999999d", " 1d"])
def test_an_age_that_is_none(text: str) -> None:
    with pytest.raises(InputError):
        parse_age(text)


def test_jobs_that_push_one_path_at_once(scene: Scene) -> None:
    stored = [LayoutStore(Layout.open(scene.root / "kept")) for _ in range(8)]
    kept = [
        KeptOutput(PATH, NAR_HASH, NAR_SIZE, scene.blob(), (scene.bundle(),), "c", f"job {n}", NOW)
        for n in range(8)
    ]

    def push(number: int) -> None:
        keep(stored[number], kept[number])

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = find_kept(scene.store, HASH).kept
    assert {each.signer for each in found} == {f"job {n}" for n in range(8)}


def test_a_list_that_is_full_says_so(scene: Scene) -> None:
    scene.keep()
    listed = scene.store.get_manifest(tag_of(HASH))
    assert listed is not None
    one = Index.parse(listed.body, "here").manifests[0]
    many = tuple(replace(one, digest=Digest(f"{n:064x}")) for n in range(200))
    scene.store.put_manifest(Index(many).dump(), MediaType.INDEX, tag_of(HASH))
    with pytest.raises(CouldNotCheck, match="the most there are"):
        scene.keep(signer="another")


def test_a_full_disk_leaves_no_part_of_a_blob(full_disk: Path) -> None:
    store = LayoutStore(Layout.create(full_disk / "kept"))
    with pytest.raises(CouldNotCheck, match="No space left"):
        store.push_stream(lambda: iter([os.urandom(4096)] * 400), NAR_TYPE)
    assert [*(full_disk / "kept/blobs").glob(".*")] == []


def fill(scene: Scene, fact: OutputFact) -> None:
    """Keep *fact* again and again, until there is no room."""
    for number in range(200):
        scene.keep(fact, signer=f"signer {number} " + os.urandom(400).hex())


def test_a_full_disk_leaves_the_list_as_it_was(full_disk: Path) -> None:
    """Another output of a path has no room: what was kept before stays, whole."""
    scene = Scene(full_disk)
    small = NarFile(b"x")
    fact = replace(FACT, nar_hash=nar_hash(small)[0], nar_size=nar_hash(small)[1])
    scene.keep(fact, scene.blob(zstandard.compress(b"".join(dump(small)))))
    with pytest.raises(CouldNotCheck, match="No space left"):
        fill(scene, fact)
    assert scene.cache().narinfo(HASH) is not None
    assert find_kept(scene.store, HASH).troubles == ()


def test_junk_does_not_push_a_dissent_out_of_sight(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many bundles not all are read: where builders must agree, that is no agreement."""
    policy = scene.root / "trust.toml"
    policy.write_text(policy.read_text().replace('outputs = "own"', 'outputs = "quorum"'))
    scene.keep()
    assert scene.cache().narinfo(HASH) is not None
    monkeypatch.setattr("nix_seed.outputs.cache._MOST_BUNDLES", 3)
    for number in range(3):
        junk = put(scene.store, b"{%d" % number, BUNDLE_V03)
        scene.keep(bundles=(Stored(junk.digest, junk.size),), signer=str(number))
    assert scene.cache().narinfo(HASH) is None
    assert "has 4 bundles, and 3 are read" in scene.reasons


def test_bundles_without_end_are_not_held(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nix_seed.outputs.cache._MOST_BUNDLE_BYTES", 0)
    scene.keep()
    assert scene.cache().narinfo(HASH) is None
    assert "too much was before it" in scene.reasons


def test_paths_without_end_are_not_remembered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nix_seed.outputs.cache._MOST_ANSWERS", 5)
    scene.keep()
    cache = scene.cache()
    for number in range(20):
        assert cache.narinfo(f"{number:032d}") is None
    assert len(cache._answers) <= 5
    assert nar_of(cache) == (200, BLOB)
