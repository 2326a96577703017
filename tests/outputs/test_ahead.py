"""What is asked of a repository for many outputs, and what is fetched ahead of Nix."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from nix_seed.core.digests import Digest
from nix_seed.outputs.kept import find_kept, put_newest
from nix_seed.outputs.rules.kept import NEWEST_TAG, with_nar
from nix_seed.registry.errors import Unreachable
from nix_seed.registry.store import Fetched
from support.output_scene import BLOB, FACT, HASH, OTHER, Counting, Scene, many


def test_one_request_a_path_and_one_for_the_jobs_word(scene: Scene) -> None:
    """However many are asked for at once."""
    cache, store, paths, word = many(scene, 20)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda path: cache.narinfo(path.hash_part), paths))
    assert None not in found
    assert len([each for each in store.asked if isinstance(each, str)]) == 20
    assert store.asked.count(word) == 1


def test_a_small_nar_is_fetched_before_it_is_asked_for(scene: Scene) -> None:
    cache, store, (path,), _ = many(scene, 1)
    assert cache.narinfo(path.hash_part) is not None
    assert cache.narinfo(path.hash_part) is not None
    (fetched,) = cache._ahead.values()
    assert fetched.result(10) == BLOB
    assert b"".join(cache.nar(path.hash_part, Digest.of(BLOB))) == BLOB
    assert store.asked.count(Digest.of(BLOB)) == 1
    # Whoever comes again has it sent from the repository, and nothing is held.
    assert b"".join(cache.nar(path.hash_part, Digest.of(BLOB))) == BLOB
    assert (store.asked.count(Digest.of(BLOB)), len(cache._ahead)) == (2, 0)


def test_what_nobody_comes_for_is_not_held_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nix_seed.outputs.cache._MOST_AHEAD", 3)
    cache, _, paths, _ = many(scene, 8)
    for path in paths:
        assert cache.narinfo(path.hash_part) is not None
        assert {each.result(10) for each in cache._ahead.values()} == {BLOB}
    assert [path for path, _ in cache._ahead] == paths[-3:]
    assert b"".join(cache.nar(paths[0].hash_part, Digest.of(BLOB))) == BLOB


def test_few_are_waited_for_where_the_registry_hangs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nix_seed.outputs.cache._MOST_AHEAD", 3)
    answers = threading.Event()

    def stalling(chunks: Iterator[bytes], *_: object) -> Iterator[bytes]:
        answers.wait(10)
        yield from chunks

    monkeypatch.setattr("nix_seed.outputs.cache.checked", stalling)
    cache, _, paths, _ = many(scene, 8)
    before = {each for each in threading.enumerate() if each.name == "ahead"}
    assert None not in [cache.narinfo(path.hash_part) for path in paths]
    assert [path for path, _ in cache._ahead] == paths[:3]
    waiting = {each for each in threading.enumerate() if each.name == "ahead"} - before
    assert len(waiting) == 3
    answers.set()
    assert b"".join(cache.nar(paths[7].hash_part, Digest.of(BLOB))) == BLOB
    assert {each.result(10) for each in cache._ahead.values()} == {BLOB}


def test_nars_wait_until_narinfos_are_answered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nix asks for all narinfos at once, and needs each before it asks for any NAR."""
    cache, store, (first, second), _ = many(scene, 2)
    asked, answer = threading.Event(), threading.Event()
    blob = Digest.of(BLOB)

    def slow(name: str | Digest, *, writing: bool = False) -> Fetched | None:
        if name == f"out-{second.hash_part}":
            asked.set()
            assert answer.wait(10)
        return Counting.get_manifest(store, name, writing=writing)

    monkeypatch.setattr(store, "get_manifest", slow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.narinfo, second.hash_part)
        assert asked.wait(10)
        assert cache.narinfo(first.hash_part) is not None
        (ahead,) = cache._ahead.values()
        assert not ahead.running()
        assert blob not in store.asked
        # Whoever asks for it all the same gets it at once.
        assert b"".join(cache.nar(first.hash_part, blob)) == BLOB
        assert (ahead.cancelled(), store.asked.count(blob)) == (True, 1)
        assert cache.narinfo(first.hash_part) is not None
        (ahead,) = cache._ahead.values()
        answer.set()
        assert waiting.result(10) is not None
        assert ahead.result(10) == BLOB


def test_who_asks_early_waits_for_what_was_pushed_last(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each path that Nix asks for at once costs a request, while one answers for all."""
    cache, store, paths, _ = many(scene, 3)
    put_newest(store, "0" * 40, [find_kept(store, each.hash_part).entries[0] for each in paths])
    store.asked.clear()
    asked, answer = threading.Event(), threading.Event()

    def slow(name: str | Digest, *, writing: bool = False) -> Fetched | None:
        asked.set()
        assert answer.wait(10)
        return Counting.get_manifest(store, name, writing=writing)

    monkeypatch.setattr(store, "get_manifest", slow)
    cache.begin()
    assert asked.wait(10)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cache.narinfo, path.hash_part) for path in paths]
        answer.set()
        assert None not in [each.result(10) for each in waiting]
    assert [each for each in store.asked if isinstance(each, str)] == [NEWEST_TAG]


def test_a_registry_that_is_gone_is_asked_once_and_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, store, paths, _ = many(scene, 3)
    store.asked.clear()

    def gone(name: str | Digest, *, writing: bool = False) -> Fetched | None:
        store.asked.append(name)
        raise Unreachable("nobody answers")

    monkeypatch.setattr(store, "get_manifest", gone)
    cache.warm_up()
    assert scene.reasons == ""  # nobody has asked for anything
    assert [cache.narinfo(path.hash_part) for path in paths] == [None] * 3
    assert (store.asked, scene.reasons) == ([NEWEST_TAG], "nobody answers")


def test_what_is_ready_is_what_would_be_looked_for(scene: Scene) -> None:
    """A narinfo made before anyone asks is not given where what it refers to lacks."""
    fact = replace(FACT, references=(OTHER,))
    scene.keep(fact)
    (entry,) = find_kept(scene.store, HASH).entries
    put_newest(scene.store, "0" * 40, [with_nar(entry, BLOB)])
    for held in (None, lambda path: path != OTHER, lambda _: True):
        cache = scene.cache()
        cache.held = held
        cache.warm_up()
        ready = cache.ready(HASH)
        assert (ready is None) == (cache.narinfo(HASH) is None)
        assert ready in (None, cache.narinfo(HASH))
