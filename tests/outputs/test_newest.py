"""All of the last pushed commit in one document: what it saves, and that it proves nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor, Index, MediaType
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.outputs.cache import OutputCache
from nix_seed.outputs.clean import clean_outputs
from nix_seed.outputs.kept import find_kept, find_newest, listed_at, put_newest
from nix_seed.outputs.rules.kept import (
    LARGEST_INLINE,
    NEWEST_TAG,
    newest_of,
    with_nar,
)
from nix_seed.registry.open import Stores
from support.output_scene import BLOB, HASH, OTHER, PATH, Scene, many
from support.output_world import changed, twenty


def entry(scene: Scene, path: StorePath = PATH) -> Descriptor:
    """The one that the path's list names."""
    (found,) = find_kept(scene.store, path.hash_part).entries
    return found


def taken(cache: OutputCache, path: StorePath = PATH) -> bytes:
    """The NAR that is served of *path*."""
    assert cache.narinfo(path.hash_part) is not None
    return b"".join(cache.nar(path.hash_part, Digest.of(BLOB)))


def test_one_request_for_all_of_a_commit(scene: Scene) -> None:
    cache, store, paths, word = many(scene, 20)
    put_newest(store, "0" * 40, [with_nar(entry(scene, path), BLOB) for path in paths])
    store.asked.clear()
    cache.warm_up()
    assert [taken(cache, path) for path in paths] == [BLOB] * 20
    assert store.asked == [NEWEST_TAG, word]
    assert cache._ahead == {}
    # What is not in it is asked for as ever.
    assert cache.narinfo(OTHER.hash_part) is None
    assert store.asked[2:] == [f"out-{OTHER.hash_part}"]


def test_where_builders_must_agree_each_list_is_asked(scene: Scene) -> None:
    scene.keep()
    policy = scene.root / "trust.toml"
    policy.write_text(policy.read_text().replace('outputs = "own"', 'outputs = "quorum"'))
    put_newest(scene.store, "0" * 40, [entry(scene)])
    cache = scene.cache()
    cache.warm_up()
    assert (cache.by_newest, cache._listed) == (False, {})


@pytest.mark.parametrize(
    "blob", [BLOB + b"x", b"", b"not zstd"], ids=["longer", "empty", "other bytes"]
)
def test_a_false_nar_in_it_is_not_taken(scene: Scene, blob: bytes) -> None:
    scene.keep()
    put_newest(scene.store, "0" * 40, [with_nar(entry(scene), blob)])
    cache = scene.cache()
    cache.warm_up()
    assert (taken(cache), scene.reasons) == (BLOB, "")


@pytest.mark.parametrize(
    "text", ["%", "é", "A" * 3 * LARGEST_INLINE], ids=["no base64", "é", "long"]
)
def test_what_is_no_nar_in_it_is_passed_over(scene: Scene, text: str) -> None:
    scene.keep()
    listed = entry(scene)
    odd = replace(listed, annotations={**listed.annotations, "io.nix-seed.output.nar": text})
    put_newest(scene.store, "0" * 40, [odd])
    assert find_newest(scene.store).nars == {}
    assert find_newest(scene.store).lists[HASH].kept == find_kept(scene.store, HASH).kept


def test_a_strangers_word_in_it_hides_no_builders(scene: Scene) -> None:
    scene.keep(bundles=(scene.bundle(signer=scene.mallory),), signer="mallory")
    false = entry(scene)
    scene.store.put_manifest(Index(()).dump(), MediaType.INDEX, f"out-{HASH}")
    scene.keep()
    put_newest(scene.store, "0" * 40, [with_nar(false, BLOB)])
    cache = scene.cache()
    cache.warm_up()
    assert (taken(cache), scene.reasons) == (BLOB, "")


def test_a_false_blob_that_it_names_is_named_and_the_list_is_asked(scene: Scene) -> None:
    good = scene.blob()
    scene.keep(blob=scene.blob(b"poison"))
    false = entry(scene)
    scene.store.put_manifest(Index(()).dump(), MediaType.INDEX, f"out-{HASH}")
    scene.keep(blob=good)
    put_newest(scene.store, "0" * 40, [false])
    cache = scene.cache()
    cache.warm_up()
    assert cache.narinfo(HASH) is not None
    with pytest.raises(Exception, match="is not intact zstd"):
        b"".join(cache.nar(HASH, Digest.of(b"poison")))
    assert taken(cache) == BLOB


@pytest.mark.parametrize(
    "body", [b"{", Index((Descriptor(MediaType.MANIFEST, Digest.of(b""), 0),)).dump()]
)
def test_nonsense_in_its_place_costs_nothing_but_requests(scene: Scene, body: bytes) -> None:
    scene.keep()
    scene.store.put_manifest(body, MediaType.INDEX, NEWEST_TAG)
    cache = scene.cache()
    cache.warm_up()
    assert (taken(cache), scene.reasons) == (BLOB, "")


def test_only_what_fits_is_listed(scene: Scene) -> None:
    scene.keep()
    one = entry(scene)
    size = sum(map(len, one.annotations.values()))
    large = [
        replace(one, digest=Digest.of(b"%d" % n), annotations={"x": "y" * (1 << 18)})
        for n in range(9)
    ]
    assert size < 1 << 18
    assert len(newest_of([one, *large], ())) == 4
    assert one in newest_of([one, *large], ())


def test_a_push_lists_all_of_its_commit_and_cleaning_lists_nothing(tmp_path: Path) -> None:
    world = twenty()
    target = f"oci:{tmp_path / 'kept'}"
    store = Stores().open(LayoutReference(str(tmp_path / "kept")), create=True)
    assert world.push(target).code == 0
    newest = find_newest(store)
    assert len(newest.lists) == len(newest.nars) == 20
    # The next commit's has what that left as it was, too, with its small NARs.
    project = changed(world.project, tmp_path / "project", "p7")
    later = replace(world, project=project)
    done = later.run("outputs", "push", *later.pushing(target))
    assert done.code == 0, done.err
    known = [StorePath.parse(path) for path in json.loads(done.out)["known"]]
    newest = find_newest(store)
    assert {path.hash_part for path in known} == newest.lists.keys()
    assert len(newest.nars) == len(known) == 18
    for part, listed in newest.lists.items():
        assert listed.kept == find_kept(store, part).kept
    assert clean_outputs(store, datetime.now(UTC) + timedelta(days=1)).dropped == 20
    assert listed_at(store, NEWEST_TAG) == ()


def test_jobs_and_systems_of_a_commit_share_it(scene: Scene) -> None:
    _, store, (one, other, later), _ = many(scene, 3)
    put_newest(store, "1" * 40, [with_nar(entry(scene, one), BLOB)])
    put_newest(store, "1" * 40, [entry(scene, other)])
    found = find_newest(store)
    assert found.lists.keys() == {one.hash_part, other.hash_part}
    assert len(found.nars) == 1
    put_newest(store, "2" * 40, [entry(scene, later)])
    assert find_newest(store).lists.keys() == {later.hash_part}
