"""Jobs at once in one repository: nobody's output is lost, whoever writes first, and cleans."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest, NarHash
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.manifest import Descriptor, Index, MediaType
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.outputs.clean import _Dropped, _restore, clean_outputs
from nix_seed.outputs.kept import CONFIG, find_kept, forget_newest, keep, put_config
from nix_seed.outputs.rules.kept import (
    NAR_TYPE,
    KeptOutput,
    Stored,
    builders_tag,
    entry_of,
    tag_of,
)
from nix_seed.registry.open import Stores
from nix_seed.registry.store import ImageStore
from nix_seed.trust.sign import KeySigner
from support import seeds
from support.attestations import put
from support.output_world import NUMBERS, Twenty, built_names, policy_text, taken_names, twenty
from support.registries import docker_registry

ALL = sorted(f"p{number}" for number in NUMBERS)


@pytest.fixture(scope="module")
def world() -> Twenty:
    return twenty()


def pushed(world: Twenty, target: str) -> list[StorePath]:
    done = world.push(target)
    assert done.code == 0, done.err
    return [StorePath.parse(path) for path in json.loads(done.out)["pushed"]]


def test_two_processes_push_the_same_paths_into_a_registry(world: Twenty, tmp_path: Path) -> None:
    bob = KeySigner.generate()
    (tmp_path / "bob.key").write_bytes(bob.pem())
    log = EmbeddedLog.create(tmp_path / "log", "log.example")
    (tmp_path / "trust.toml").write_text(policy_text({"alice": world.signer, "bob": bob}, log))
    alice = replace(world, policy=tmp_path / "trust.toml")
    jobs = [alice, replace(alice, key=tmp_path / "bob.key", signer=bob)]
    with docker_registry(tmp_path / "registry", password=False) as running:
        target = f"{running.host}/raced"
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda job: pushed(job, target), jobs))
        assert sorted(path.name for path in found[0]) == ALL
        assert sorted(found[0]) == sorted(found[1])
        store = Stores().open(Reference.parse(target))
        for path in found[0]:
            kept = find_kept(store, path.hash_part).kept
            assert {each.signer for each in kept} == {job.signer.identity for job in jobs}
            assert len({each.nar for each in kept}) == 1, "equal NARs are one blob"


def test_a_push_that_was_killed_again_and_again_is_done_whole(
    world: Twenty, tmp_path: Path
) -> None:
    with docker_registry(tmp_path / "registry", password=False) as running:
        target = f"{running.host}/killed"
        kept = tmp_path / "registry/data/docker/registry/v2"
        tags = kept / "repositories/killed/_manifests/tags"
        stages: list[Callable[[], int]] = [
            lambda: len(list(kept.glob("blobs/sha256/*/*/data"))) - 5,
            lambda: len(list(tags.glob("out-*.*"))) - 2,
            lambda: len(list(tags.glob("out-" + "?" * 32))),
        ]
        for stage in stages:
            killed_at(world, target, stage)
        pushed(world, target)
        how: list[str | Path] = ["--from", target, "--policy", world.policy, "--json"]
        asked = ["git", "-C", str(world.project), "rev-parse", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        done = world.run("outputs", "check", commit, *how)
    assert done.code == 0, done.out + done.err
    found = json.loads(done.out)["outputs"]
    assert sorted(each["path"][44:] for each in found) == ALL


def killed_at(world: Twenty, target: str, reached: Callable[[], int]) -> None:
    """Begin a push, and kill it as soon as *reached* is more than 0."""
    env = seeds.environment(world.cache, {"NIX_SEED_STATE": str(world.cache / "state")})
    process = subprocess.Popen(
        [*seeds.COMMAND, "outputs", "push", *map(str, world.pushing(target))],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while reached() <= 0:
        assert process.poll() is None, "it ended before"
        time.sleep(0.001)
    process.kill()
    process.wait()


def test_cleaning_beside_a_job_loses_nothing_of_the_jobs(world: Twenty, tmp_path: Path) -> None:
    """All of it was pushed long ago: the job finds its blobs, which are then cleaned away."""
    target = f"oci:{tmp_path / 'kept'}"
    paths = pushed(world, target)
    store = Stores().open(LayoutReference(str(tmp_path / "kept")))
    # The job has begun, and found what there is: later on a slow machine than on a fast one.
    for delay in (1.0, 0.5, 0.25, 0.1, 0.0):
        make_old(store, paths)
        again, dropped = push_beside_cleaning(world, target, store, delay)
        assert sorted(again) == sorted(paths)
        for path in again:
            for kept in find_kept(store, path.hash_part).kept:
                assert kept.pushed > "2026"
                assert store.has_blob(kept.nar.digest)
        if dropped:
            return
    pytest.fail("nothing was cleaned beside any of the jobs")


@pytest.mark.parametrize("who", ["alice", "a builder who never pushed that path before"])
def test_what_is_listed_while_clean_overwrites_the_list_is_listed_again(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole job, its last look included, between the cleaner's last read and its write."""
    with docker_registry(tmp_path / "registry", password=False) as running:
        reference = Reference.parse(f"{running.host}/cleaned")
        job, cleaner = Stores().open(reference), Stores().open(reference)
        blob = put(job, b"a NAR", NAR_TYPE)
        put_config(job)
        nar = Stored(blob.digest, blob.size)
        new = replace(listed_by(0, 0, nar), signer=who)
        old = replace(new, signer="alice", pushed="2020-01-31T12:00:00Z")
        keep(job, old)
        put_manifest, tag = cleaner.put_manifest, tag_of(old.path.hash_part)
        raced: list[str] = []

        def late(body: bytes, media_type: str, name: str | Digest | None = None) -> Descriptor:
            if name == tag and not raced:
                raced.append(name)
                keep(job, new)
            return put_manifest(body, media_type, name)

        monkeypatch.setattr(cleaner, "put_manifest", late)
        done = clean_outputs(cleaner, datetime(2026, 1, 1, tzinfo=UTC))
        assert (raced, done.dropped, done.kept) == ([tag], 1, 1)
        assert find_kept(job, old.path.hash_part).kept == (new,)
        # Nothing holds the old one any more: its own tag does not, either.
        again = clean_outputs(job, datetime(2027, 1, 1, tzinfo=UTC))
        assert (again.dropped, again.kept, again.troubles) == (1, 0, ())
        lists = [job.get_manifest(each) for each in job.list_tags()]
        assert {None if each is None else each.body for each in lists} == {Index(()).dump()}


def listed_by(number: int, turn: int, nar: Stored) -> KeptOutput:
    return KeptOutput(
        path=StorePath.parse(f"/nix/store/{turn:0>32}-p"),
        nar_hash=NarHash("ab" * 32),
        nar_size=5,
        nar=nar,
        bundles=(nar,),
        commit="12" * 20,
        signer=f"builder {number}",
        pushed="2026-01-31T12:00:00Z",
    )


def test_eight_builders_list_one_path_at_once(tmp_path: Path) -> None:
    """Threads stand for machines: nothing here waits for another."""
    writers, turns = 8, 12
    with docker_registry(tmp_path / "registry", password=False) as running:
        reference = Reference.parse(f"{running.host}/raced")
        stores = [Stores().open(reference) for _ in range(writers)]
        blob = put(stores[0], b"a NAR", NAR_TYPE)
        put_config(stores[0])
        nar = Stored(blob.digest, blob.size)
        for turn in range(turns):
            with ThreadPoolExecutor(writers) as pool:
                work = [listed_by(number, turn, nar) for number in range(writers)]
                list(pool.map(keep, stores, work))
            kept = find_kept(stores[0], work[0].path.hash_part).kept
            assert {each.signer for each in kept} == {each.signer for each in work}


def test_of_one_builders_jobs_at_once_the_last_is_listed(tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", password=False) as running:
        reference = Reference.parse(f"{running.host}/raced")
        stores = [Stores().open(reference) for _ in range(4)]
        blob = put(stores[0], b"a NAR", NAR_TYPE)
        put_config(stores[0])
        first = listed_by(0, 0, Stored(blob.digest, blob.size))
        for turn in range(5):
            work = [replace(first, commit=f"{turn:x}{number:x}" * 20) for number in range(4)]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(keep, stores, work))
            tagged = stores[0].get_manifest(builders_tag(first))
            listed = stores[0].get_manifest(tag_of(first.path.hash_part))
            assert tagged
            assert listed
            entries = listed.index("the list").manifests
            assert tagged.descriptor.digest in {item.digest for item in entries}


def test_a_list_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """What was overwritten is listed again, whatever somebody has put at another list's tag."""
    store = Stores().open(LayoutReference(str(tmp_path / "kept")), create=True)
    blob = put(store, b"a NAR", NAR_TYPE)
    put_config(store)
    outputs = [listed_by(0, turn, Stored(blob.digest, blob.size)) for turn in range(3)]
    entries = keep(store, *outputs)
    lists = {tag_of(each.path.hash_part): each.path.hash_part for each in outputs}
    first, odd, last = lists
    for tag in (first, last):
        store.put_manifest(Index(()).dump(), MediaType.INDEX, tag)
    store.put_manifest(outputs[1].manifest(CONFIG).dump(), MediaType.MANIFEST, odd)
    done = _Dropped(lists=lists)
    assert _restore(store, done, lambda _: False) == 2
    assert len(done.troubles) == 1
    assert "not a list" in done.troubles[0]
    for tag, entry in ((first, entries[0]), (last, entries[2])):
        listed = store.get_manifest(tag)
        assert listed
        assert listed.index(tag).manifests == (entry,)


def make_old(store: ImageStore, paths: Sequence[StorePath]) -> None:
    """Have all *paths* been pushed years ago."""
    for path in paths:
        [kept] = find_kept(store, path.hash_part).kept
        old = replace(kept, pushed="2020-01-31T12:00:00Z")
        manifest = old.manifest(CONFIG).dump()
        entry = entry_of(manifest, old)
        store.put_manifest(manifest, MediaType.MANIFEST, builders_tag(old))
        body = Index((entry,)).dump()
        store.put_manifest(body, MediaType.INDEX, tag_of(path.hash_part))


def push_beside_cleaning(
    world: Twenty, target: str, store: ImageStore, delay: float
) -> tuple[Sequence[StorePath], int]:
    """Push again, and clean all the time from *delay* seconds on; return what was dropped, too."""
    done = threading.Event()
    dropped = []

    def clean() -> None:
        while not done.wait(0.01):
            cleaned = clean_outputs(store, datetime.now(UTC) - timedelta(days=30))
            dropped.append(cleaned.dropped)

    cleaning = threading.Thread(target=clean)
    delayed = threading.Timer(delay, cleaning.start)
    delayed.start()
    try:
        again = pushed(world, target)
    finally:
        delayed.join()
        done.set()
        cleaning.join()
    clean_outputs(store, datetime.now(UTC) - timedelta(days=30))
    return again, sum(dropped)


def test_a_reference_that_is_gone_is_built_again(world: Twenty, tmp_path: Path) -> None:
    """Nix builds what lacks, and then takes what refers to it."""
    target = f"oci:{tmp_path / 'kept'}"
    [gone] = [path for path in pushed(world, target) if path.name == "p1"]
    store = Stores().open(LayoutReference(str(tmp_path / "kept")))
    store.put_manifest(Index(()).dump(), MediaType.INDEX, tag_of(gone.hash_part))
    forget_newest(store)
    fresh = world.fresh_store(tmp_path / "fresh")
    with world.serving(target, tmp_path / "served") as served:
        done = served.build(f"{world.project}#p20", fresh)
    assert done.returncode == 0, done.stderr
    assert built_names(done.stderr) == ["p1"]
    assert taken_names(done.stderr) == sorted({*ALL} - {"p1"})
