"""Several write one list in one registry at once: nobody's entry is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.formats.oci import manifest as oci
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry import client
from nix_seed.registry.client import Repository
from nix_seed.registry.open import Stores
from nix_seed.registry.store import ImageStore, put_bytes
from support.registries import Running, docker_registry, referrers_registry

WRITERS, TURNS = 8, 8


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with docker_registry(tmp_path_factory.mktemp("registry"), password=False) as registry:
        yield registry


@pytest.fixture(autouse=True)
def no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of a test stand for machines, which do not wait for one another."""
    monkeypatch.setattr(client, "_ONE_WRITER", nullcontext())


def opened(running: Running, name: str) -> ImageStore:
    return Stores().open(Reference.parse(f"{running.host}/{name}"))


def an_image(store: ImageStore, number: int) -> oci.Descriptor:
    config = put_bytes(store, oci.MediaType.EMPTY, oci.EMPTY)
    body = oci.Manifest(config, (config,), {"number": str(number)}, artifact_type="a/b").dump()
    return store.put_manifest(body, oci.MediaType.MANIFEST)


def beside(subject: oci.Descriptor, words: str) -> bytes:
    empty = oci.Descriptor.of(oci.MediaType.EMPTY, oci.EMPTY)
    said = {"words": words}
    return oci.Manifest(empty, (empty,), said, artifact_type="a/b", subject=subject).dump()


def at_once(work: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(work, range(WRITERS)))


def listed(store: ImageStore, tag: str) -> set[Digest]:
    fetched = store.get_manifest(tag)
    assert fetched is not None
    return {item.digest for item in fetched.index(tag).manifests}


def test_eight_attach_to_one_image_at_once(running: Running) -> None:
    stores = [opened(running, "attached") for _ in range(WRITERS)]
    for turn in range(TURNS):
        image = an_image(stores[0], turn)
        bodies = [beside(image, f"of writer {number}") for number in range(WRITERS)]
        at_once(lambda number: stores[number].attach(bodies[number]))  # noqa: B023
        assert listed(stores[0], oci.fallback_tag(image.digest)) == set(map(Digest.of, bodies))


def test_who_attaches_while_another_takes_off_stays(running: Running) -> None:
    stores = [opened(running, "detached") for _ in range(WRITERS)]
    for turn in range(TURNS):
        image = an_image(stores[0], turn)
        old = [stores[0].attach(beside(image, f"old {each}")).digest for each in range(3)]
        bodies = [beside(image, f"of writer {number}") for number in range(1, WRITERS)]

        def work(number: int) -> None:
            if number:
                stores[number].attach(bodies[number - 1])  # noqa: B023
            else:
                stores[0].detach(image.digest, old)  # noqa: B023

        at_once(work)
        there = listed(stores[0], oci.fallback_tag(image.digest))
        assert there >= set(map(Digest.of, bodies))
        # Who had begun before may bring back what went; it goes the next time.
        stores[0].detach(image.digest, old)
        stores[0].attach(beside(image, "a late one"))
        assert listed(stores[0], oci.fallback_tag(image.digest)).isdisjoint(old)


def test_what_a_list_lost_is_there_again_once_its_tag_was_tried(running: Running) -> None:
    """Who asks whether a tag can be moved writes the list as it was read, maybe too late."""
    store = opened(running, "asked")
    assert isinstance(store, Repository)
    image = an_image(store, 0)
    first, late = beside(image, "first"), beside(image, "late")
    store.attach(first)
    before = store.get_manifest(tag := oci.fallback_tag(image.digest))
    store.attach(late)
    assert before is not None
    store.put_manifest(before.body, oci.MediaType.INDEX, tag)
    store.check_attachable(image.digest)
    assert listed(store, tag) == {Digest.of(first), Digest.of(late)}


def test_only_without_the_api_is_a_manifest_marked(tmp_path: Path, running: Running) -> None:
    with referrers_registry(tmp_path) as other:
        for where, marked in ((other, False), (running, True)):
            store = opened(where, "marked")
            image = an_image(store, 0)
            body = beside(image, "attached")
            store.attach(body)
            tag = oci.mark_tag(image.digest, Digest.of(body))
            assert oci.lists_referrers(tag)
            assert (tag in store.list_tags()) == marked
            assert Digest.of(body) in listed(store, oci.fallback_tag(image.digest))


@pytest.mark.parametrize("number", [0, 40, 130])
def test_tags_by_their_beginning(running: Running, tmp_path: Path, number: int) -> None:
    """One of the registries sorts and pages; the other gives all there are each time."""
    with referrers_registry(tmp_path) as other:
        for where in (other, running):
            store = opened(where, f"tagged{number}")
            image = an_image(store, 0)
            fetched = store.get_manifest(image.digest)
            assert fetched is not None
            names = [f"b.{each:03}" for each in range(number)] + ["a", "a.1", "b", "B.1", "c.7"]
            for name in names:
                store.put_manifest(fetched.body, oci.MediaType.MANIFEST, name)
            wanted = {name for name in names if name.startswith(("b.", "c."))}
            assert set(store.tags_with(["b.", "c."], 4)) == wanted
            assert set(store.tags_with(["d."])) == set()
