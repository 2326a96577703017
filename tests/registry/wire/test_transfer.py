"""Push, pull, index and inspect against a real registry; skopeo agrees with both directions."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.core.events import listening
from nix_seed.formats.oci.manifest import About, Descriptor, Index, MediaType
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.image.index import IndexPlan, build_index, prepare_index
from nix_seed.image.inspect import InspectedImage, InspectedIndex, inspect
from nix_seed.image.push import push
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Patience
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.open import Stores, fetch, find
from nix_seed.registry.transfer import BlobDone, BlobProgress, TagMoved, pull
from support.faults import Fault, Proxy
from support.images import check_image
from support.registries import PASSWORD, USER, Running, needs
from support.seed_images import layer, seed_image

US = Keyring(given=Credential("the test", USER, PASSWORD))
QUICK = Patience(attempts=3, base=0.01)


@pytest.fixture
def stores() -> Stores:
    return Stores(US, patience=QUICK)


@pytest.fixture
def target(running: Running, request: pytest.FixtureRequest) -> Reference:
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return Reference(running.host, f"flows/{name}", "v1")


def through(proxy: Proxy, target: Reference) -> Reference:
    return Reference(proxy.host, target.repository, target.tag)


def blobs(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "blobs/sha256").iterdir()}


def test_there_and_back(tmp_path: Path, stores: Stores, target: Reference) -> None:
    root = seed_image(tmp_path / "a", "demo")
    done = push(stores, LayoutReference(str(tmp_path / "a")), target, tags=["v2", "v1"])
    assert (done.root.digest, done.tags) == (root.digest, ("v1", "v2"))
    assert {how for _, how in done.blobs} == {"moved"}
    assert len(done.blobs) == 4
    back = pull(stores, target.at("v2"), LayoutReference(str(tmp_path / "b")))
    assert back.root.digest == root.digest
    assert blobs(tmp_path / "b") == blobs(tmp_path / "a")
    assert check_image(
        Layout.open(tmp_path / "b"), Layout.open(tmp_path / "b").listing().named["v2"]
    )


def test_only_what_lacks_is_sent(
    tmp_path: Path, stores: Stores, target: Reference, proxy: Proxy
) -> None:
    shared = ("base", *layer("base", 200_000))
    seed_image(tmp_path / "a", "one", layers=[shared, ("packages", *layer("p", seed=1))])
    seed_image(tmp_path / "a", "two", layers=[shared, ("packages", *layer("p", seed=2))])
    target = through(proxy, target)
    push(stores, LayoutReference(str(tmp_path / "a"), "one"), target)
    proxy.seen.clear()
    done = push(stores, LayoutReference(str(tmp_path / "a"), "two"), target.at("two"))
    assert done.size("present") == len(shared[1])
    sent = sum(seen.received for seen in proxy.seen)
    assert sent < 5000
    proxy.seen.clear()
    again = push(stores, LayoutReference(str(tmp_path / "a"), "two"), target.at("two"))
    assert {how for _, how in again.blobs} == {"present"}
    assert [seen.method for seen in proxy.seen if seen.method not in ("HEAD", "GET")] == ["PUT"]


def test_blobs_are_linked_from_other_repositories(
    tmp_path: Path, stores: Stores, target: Reference
) -> None:
    seed_image(tmp_path / "a", "demo")
    push(stores, LayoutReference(str(tmp_path / "a")), target)
    other = Reference(target.registry, target.repository + "/other", "v1")
    done = push(stores, LayoutReference(str(tmp_path / "a")), other, mount_from=[target.repository])
    assert {how for _, how in done.blobs} == {"linked"}
    third = Reference(target.registry, target.repository + "/third", "v1")
    copied = push(stores, other, third)
    assert {how for _, how in copied.blobs} == {"linked"}
    pull(stores, third, LayoutReference(str(tmp_path / "b")))
    assert blobs(tmp_path / "b") == blobs(tmp_path / "a")


def test_events(tmp_path: Path, stores: Stores, target: Reference) -> None:
    root = seed_image(tmp_path / "a", "demo", layers=[("base", *layer("base", 700_000))])
    events: list[Any] = []
    with listening(events.append):
        done = push(stores, LayoutReference(str(tmp_path / "a")), target)
    last = {e.blob.digest: e.done for e in events if isinstance(e, BlobProgress)}
    assert last == {blob.digest: blob.size for blob, _ in done.blobs}
    assert sum(isinstance(e, BlobProgress) for e in events) >= 3
    assert {e.blob.digest: e.how for e in events if isinstance(e, BlobDone)} == {
        blob.digest: how for blob, how in done.blobs
    }
    assert events[-1] == TagMoved("v1", root.digest)


def test_a_failed_push_leaves_no_tag_and_the_next_one_goes_on(
    tmp_path: Path, stores: Stores, target: Reference, proxy: Proxy
) -> None:
    root = seed_image(tmp_path / "a", "demo")
    target = through(proxy, target)
    biggest = max(blobs(tmp_path / "a").items(), key=lambda item: len(item[1]))[0]
    proxy.faults += [Fault("PUT", biggest, times=None, status=500)]
    with pytest.raises(CouldNotCheck, match=f"pushing blob sha256:{biggest} to .* answered 500"):
        push(stores, LayoutReference(str(tmp_path / "a")), target)
    repository = stores.repository(target)
    assert repository.list_tags() == ()
    proxy.set()
    done = push(stores, LayoutReference(str(tmp_path / "a")), target)
    assert done.root.digest == root.digest


def test_a_layer_too_large_for_one_request_arrives_in_parts(
    tmp_path: Path, stores: Stores, target: Reference, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nix_seed.registry.blobs._PART", 1000)
    layers = [("base", *layer("large", 5000, int.from_bytes(os.urandom(4))))]
    root = seed_image(tmp_path / "a", "demo", layers=layers)
    proxy.faults += [Fault("PUT", "/blobs/uploads/", status=413)]
    push(stores, LayoutReference(str(tmp_path / "a")), through(proxy, target))
    assert proxy.paths("PATCH"), "nothing was sent in parts"
    back = pull(stores, target, LayoutReference(str(tmp_path / "b")))
    assert back.root.digest == root.digest


def test_a_damaged_layout_is_not_pushed(tmp_path: Path, stores: Stores, target: Reference) -> None:
    seed_image(tmp_path / "a", "demo")
    name, data = max(blobs(tmp_path / "a").items(), key=lambda item: len(item[1]))
    (tmp_path / "a/blobs/sha256" / name).write_bytes(b"x" * len(data))
    with pytest.raises(CheckedFalse, match=r"local data has other bytes|does not have the digest"):
        push(stores, LayoutReference(str(tmp_path / "a")), target)
    assert stores.repository(target).list_tags() == ()


def test_a_pull_that_is_lied_to_keeps_nothing_of_it(
    tmp_path: Path, stores: Stores, target: Reference, proxy: Proxy
) -> None:
    seed_image(tmp_path / "a", "demo")
    push(stores, LayoutReference(str(tmp_path / "a")), target)
    biggest = max(blobs(tmp_path / "a").items(), key=lambda item: len(item[1]))[0]
    proxy.faults += [Fault("GET", biggest, flip=100)]
    into = LayoutReference(str(tmp_path / "b"))
    with pytest.raises(CheckedFalse, match="has other bytes than its digest names"):
        pull(stores, through(proxy, target), into)
    there = blobs(tmp_path / "b")
    finished = {name: data for name, data in there.items() if not name.startswith(".")}
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in finished.items())
    assert not {name for name in there if biggest in name}
    assert Layout.open(tmp_path / "b").index().manifests == ()
    pull(stores, through(proxy, target), into)
    assert blobs(tmp_path / "b") == blobs(tmp_path / "a")


def test_a_pull_mends_what_is_damaged(tmp_path: Path, stores: Stores, target: Reference) -> None:
    seed_image(tmp_path / "a", "demo")
    push(stores, LayoutReference(str(tmp_path / "a")), target)
    into = LayoutReference(str(tmp_path / "b"))
    pull(stores, target, into)
    name, data = max(blobs(tmp_path / "b").items(), key=lambda item: len(item[1]))
    (tmp_path / "b/blobs/sha256" / name).unlink()
    (tmp_path / "b/blobs/sha256" / name).write_bytes(data[:-1] + b"?")
    again = pull(stores, target, into)
    assert [str(blob.digest) for blob, how in again.blobs if how == "moved"] == [f"sha256:{name}"]
    assert blobs(tmp_path / "b") == blobs(tmp_path / "a")


def test_a_registry_that_lost_an_image_of_an_index(
    tmp_path: Path, stores: Stores, target: Reference, proxy: Proxy
) -> None:
    pushed = push_systems(tmp_path, stores, target)
    made = build_index(stores, target, list(pushed.values()))
    lost = made.members[1].descriptor.digest
    proxy.faults += [Fault("GET", f"/manifests/sha256(:|%3A){lost.hex}", None, status=404)]
    with pytest.raises(CheckedFalse, match=f"names the image {lost}, which .* does not have"):
        pull(stores, through(proxy, target), LayoutReference(str(tmp_path / "b")))
    assert not (tmp_path / "b/index.json").exists()


def test_a_pull_goes_on_where_it_was_cut(
    tmp_path: Path, stores: Stores, target: Reference, proxy: Proxy
) -> None:
    seed_image(tmp_path / "a", "demo", layers=[("base", *layer("base", 700_000))])
    push(stores, LayoutReference(str(tmp_path / "a")), target)
    biggest = max(blobs(tmp_path / "a").items(), key=lambda item: len(item[1]))[0]
    proxy.faults += [
        Fault("GET", biggest, cut=300_000),
        Fault("GET", biggest, times=None, skip=0, status=500),
    ]
    into = LayoutReference(str(tmp_path / "b"))
    with pytest.raises(CouldNotCheck, match="answered 500"):
        pull(stores, through(proxy, target), into)
    proxy.set()
    proxy.seen.clear()
    pull(stores, through(proxy, target), into)
    assert [
        s.headers.get("range") for s in proxy.seen if biggest in s.path and s.method == "GET"
    ] == [f"bytes=300000-{(tmp_path / 'a/blobs/sha256' / biggest).stat().st_size - 1}"]
    assert blobs(tmp_path / "b") == blobs(tmp_path / "a")


def test_names_that_do_not_exist(tmp_path: Path, stores: Stores, target: Reference) -> None:
    seed_image(tmp_path / "a", "demo")
    with pytest.raises(InputError, match="does not exist") as caught:
        push(stores, LayoutReference(str(tmp_path / "a"), "other"), target)
    assert caught.value.hint == f"oci:{tmp_path / 'a'} has demo"
    with pytest.raises(InputError, match="does not exist"):
        pull(stores, target, LayoutReference(str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()
    bare = Reference(target.registry, target.repository)
    with pytest.raises(InputError, match="names no image") as caught:
        pull(stores, bare, LayoutReference(str(tmp_path / "b")))
    assert caught.value.hint == f"add a tag: {bare}:latest"
    wrong = target.at(Digest.of(b"other"))
    with pytest.raises(InputError, match=r"is sha256:.*, not the sha256:.* to push"):
        push(stores, LayoutReference(str(tmp_path / "a")), wrong)


SYSTEMS = ["aarch64-darwin", "aarch64-linux", "x86_64-linux"]


def push_systems(tmp_path: Path, stores: Stores, target: Reference) -> dict[str, Reference]:
    pushed = {}
    for system in SYSTEMS:
        layers = [("base", *layer(system))]
        seed_image(tmp_path / "a", system, system=system, layers=layers)
        pushed[system] = target.at(f"key-{system}")
        push(stores, LayoutReference(str(tmp_path / "a"), system), pushed[system])
    return pushed


def test_an_index_of_all_systems(tmp_path: Path, stores: Stores, target: Reference) -> None:
    pushed = push_systems(tmp_path, stores, target)
    images = [pushed[system] for system in reversed(SYSTEMS)]
    done = build_index(stores, target, images, IndexPlan(SYSTEMS, ["latest"]))
    assert [member.system for member in done.members] == SYSTEMS
    platforms = [member.descriptor.platform for member in done.members]
    assert [(p.os, p.architecture, p.variant) for p in platforms if p is not None] == [
        ("darwin", "arm64", "v8"),
        ("linux", "arm64", "v8"),
        ("linux", "amd64", None),
    ]
    assert build_index(stores, target, images).descriptor == done.descriptor, "deterministic"
    shown = inspect(stores, target.at("latest"))
    assert isinstance(shown, InspectedIndex)
    assert [image.system for image in shown.images] == SYSTEMS
    one = pull(
        stores, target, LayoutReference(str(tmp_path / "one"), "seed"), system="x86_64-linux"
    )
    assert one.root.digest == done.members[2].descriptor.digest
    everything = pull(stores, target, LayoutReference(str(tmp_path / "all"), "seed"))
    assert len(everything.images) == 3
    with pytest.raises(InputError, match="has no images for riscv64-linux") as caught:
        pull(stores, target, LayoutReference(str(tmp_path / "x")), system="riscv64-linux")
    assert caught.value.hint == "it has: darwin/arm64/v8, linux/amd64, linux/arm64/v8"


def test_what_an_index_says_of_itself(tmp_path: Path, stores: Stores, target: Reference) -> None:
    """In the registry, where people look for it; the images are the same without it."""
    pushed = push_systems(tmp_path, stores, target)
    images = list(pushed.values())
    bare = build_index(stores, target, images)
    about = About("https://forge.example/o/tool.git", "1" * 40, "2025-01-31T12:00:00Z", "MIT")
    done = build_index(stores, target, images, IndexPlan(about=about))
    prefix = "org.opencontainers.image."
    raw = json.loads(
        skopeo(
            *("inspect", "--raw", "--tls-verify=false", "--creds", f"{USER}:{PASSWORD}"),
            f"docker://{target}",
        )
    )
    assert raw["annotations"] == {
        f"{prefix}created": "2025-01-31T12:00:00Z",
        f"{prefix}licenses": "MIT",
        f"{prefix}revision": "1" * 40,
        f"{prefix}source": "https://forge.example/o/tool.git",
        f"{prefix}title": "tool",
    }
    assert done.members == bare.members
    for member in done.members:
        manifest = fetch(stores.open(target), target.at(member.descriptor.digest))
        assert prefix.encode() not in manifest.body
    ready = prepare_index(stores, target, images, about=about)
    assert ready.digest == done.descriptor.digest
    assert ready.as_named([bare.descriptor.digest]).digest == bare.descriptor.digest
    assert ready.as_named([bare.descriptor.digest, ready.digest]) == ready


def test_an_incomplete_index_is_not_published(
    tmp_path: Path, stores: Stores, target: Reference
) -> None:
    pushed = push_systems(tmp_path, stores, target)
    some = [pushed["x86_64-linux"], pushed["aarch64-linux"]]
    with pytest.raises(InputError, match="the index lacks aarch64-darwin; it has aarch64-linux, x"):
        build_index(stores, target, some, IndexPlan(SYSTEMS))
    with pytest.raises(InputError, match="no image for aarch64-linux is declared"):
        build_index(stores, target, some, IndexPlan(["x86_64-linux"]))
    with pytest.raises(InputError, match=r"two images are for x86_64-linux: .*key-x86_64-linux, "):
        build_index(stores, target, [some[0], some[0]])
    with pytest.raises(InputError, match="an index of no images is refused"):
        build_index(stores, target, [])
    assert "v1" not in stores.repository(target).list_tags()


def test_an_index_from_a_layout_brings_its_images(
    tmp_path: Path, stores: Stores, target: Reference
) -> None:
    seed_image(tmp_path / "a", "x", system="x86_64-linux")
    seed_image(tmp_path / "a", "d", system="x86_64-darwin")
    images = [LayoutReference(str(tmp_path / "a"), tag) for tag in ("x", "d")]
    build_index(stores, target, images, IndexPlan(["x86_64-linux", "x86_64-darwin"]))
    pull(stores, target, LayoutReference(str(tmp_path / "b")))
    on_disk = LayoutReference(str(tmp_path / "a"), "all")
    made = build_index(stores, on_disk, images)
    assert inspect(stores, on_disk).digest == made.descriptor.digest


def test_an_index_whose_children_are_missing(
    tmp_path: Path, stores: Stores, target: Reference
) -> None:
    seed_image(tmp_path / "a", "demo")
    store = LayoutStore(Layout.open(tmp_path / "a"))
    missing = Descriptor(MediaType.MANIFEST, Digest.of(b"missing"), 7)
    store.put_manifest(Index((missing,)).dump(), MediaType.INDEX, "broken")
    broken = LayoutReference(str(tmp_path / "a"), "broken")
    for work in (lambda: push(stores, broken, target), lambda: inspect(stores, broken)):
        with pytest.raises(CheckedFalse, match=f"names the image {missing.digest}, which "):
            work()


@pytest.mark.parametrize("body", [b'{"schemaVersion":2}', b"{", b'{"schemaVersion":1}'])
def test_an_index_of_an_image_that_is_none_is_false(
    tmp_path: Path, stores: Stores, target: Reference, body: bytes
) -> None:
    """Who asked gave a good name; what lies under it is wrong (exit code 1, not 2)."""
    seed_image(tmp_path / "a", "demo")
    store = LayoutStore(Layout.open(tmp_path / "a"))
    child = Descriptor.of(MediaType.MANIFEST, body)
    (tmp_path / "a/blobs/sha256" / child.digest.hex).write_bytes(body)
    store.put_manifest(Index((child,)).dump(), MediaType.INDEX, "broken")
    broken = LayoutReference(str(tmp_path / "a"), "broken")
    back = LayoutReference(str(tmp_path / "back"), "v1")
    for work in (
        lambda: push(stores, broken, target),
        lambda: pull(stores, broken, back),
        lambda: inspect(stores, broken),
    ):
        with pytest.raises(CheckedFalse, match=str(child.digest)):
            work()


def test_what_docker_pushed_is_named_and_how_to_convert_it(
    tmp_path: Path, stores: Stores, target: Reference
) -> None:
    """``docker push`` makes a manifest of Docker's own, with layers of its own."""
    seed_image(tmp_path / "a", "demo")
    push(stores, LayoutReference(str(tmp_path / "a")), target)
    repository = stores.repository(target)
    fetched = repository.get_manifest("v1")
    assert fetched is not None
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    body = fetched.body.replace(MediaType.MANIFEST.encode(), docker.encode())
    repository.put_manifest(body, docker, "docker")
    there = target.at("docker")
    back = LayoutReference(str(tmp_path / "back"), "v1")
    for work in (lambda: inspect(stores, there), lambda: pull(stores, there, back)):
        with pytest.raises(InputError, match="of Docker's own format, not an OCI image") as caught:
            work()
        assert "skopeo copy --format oci" in (caught.value.hint or "")


def test_an_index_that_gives_an_image_another_size(
    tmp_path: Path, stores: Stores, target: Reference
) -> None:
    """Who plans a download by an index would be told less than comes."""
    image = seed_image(tmp_path / "a", "demo")
    store = LayoutStore(Layout.open(tmp_path / "a"))
    lying = Descriptor(image.media_type, image.digest, image.size - 1)
    store.put_manifest(Index((lying,)).dump(), MediaType.INDEX, "lying")
    with pytest.raises(CheckedFalse, match=f"gives {image.digest} another size than it has"):
        push(stores, LayoutReference(str(tmp_path / "a"), "lying"), target)
    assert stores.repository(target).list_tags() == ()


def test_an_index_of_indexes_without_end(tmp_path: Path, stores: Stores, target: Reference) -> None:
    """Ours has two levels. What nests on is no image that anybody makes, but somebody may send."""
    here = seed_image(tmp_path / "a", "demo")
    store = LayoutStore(Layout.open(tmp_path / "a"))
    for level in range(8):
        here = store.put_manifest(Index((here,)).dump(), MediaType.INDEX, f"level-{level}")
    push(stores, LayoutReference(str(tmp_path / "a"), "level-3"), target)
    with pytest.raises(CheckedFalse, match="an index of more images than 200, or too deep"):
        push(stores, LayoutReference(str(tmp_path / "a"), "level-7"), target.at("v2"))


def test_is_it_there(tmp_path: Path, stores: Stores, target: Reference, proxy: Proxy) -> None:
    root = seed_image(tmp_path / "a", "demo")
    on_disk = LayoutReference(str(tmp_path / "a"), "demo")
    assert find(stores, through(proxy, target)) is None
    assert find(stores, LayoutReference(str(tmp_path / "nowhere"), "demo")) is None
    assert find(stores, on_disk.at("other")) is None
    push(stores, on_disk, target)
    proxy.seen.clear()
    for reference in (through(proxy, target), on_disk):
        found = find(stores, reference)
        assert found is not None
        assert found.digest == root.digest
    assert [seen.method for seen in proxy.seen] == ["HEAD"]


def test_inspect(tmp_path: Path, stores: Stores, target: Reference) -> None:
    root = seed_image(tmp_path / "a", "demo")
    push(stores, LayoutReference(str(tmp_path / "a")), target)
    shown = inspect(stores, target)
    assert isinstance(shown, InspectedImage)
    assert shown.digest == root.digest
    assert (shown.system, shown.kind, shown.name) == ("x86_64-linux", "seed", "demo")
    assert list(shown.tiers()) == ["base", "toolchain", "container"]
    assert shown.layers[0].diff_id == layer("base")[1]
    on_disk = inspect(stores, LayoutReference(str(tmp_path / "a"), "demo"))
    assert isinstance(on_disk, InspectedImage)
    assert (on_disk.digest, on_disk.layers) == (shown.digest, shown.layers)


def skopeo(*arguments: str) -> str:
    program = needs("skopeo", "skopeo")
    command = [program, "--insecure-policy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_copies_what_we_push_unchanged(
    tmp_path: Path, stores: Stores, target: Reference
) -> None:
    pushed = push_systems(tmp_path, stores, target)
    build_index(stores, target, list(pushed.values()))
    login = ["--src-tls-verify=false", "--src-creds", f"{USER}:{PASSWORD}"]
    skopeo("copy", "--all", *login, f"docker://{target}", f"oci:{tmp_path / 'copied'}:v1")
    copied = inspect(stores, LayoutReference(str(tmp_path / "copied"), "v1"))
    assert copied == inspect(stores, LayoutReference(str(tmp_path / "copied"), "v1"))
    assert copied.digest == inspect(stores, target).digest
    pull(stores, target, LayoutReference(str(tmp_path / "ours"), "v1"))
    assert blobs(tmp_path / "ours") == blobs(tmp_path / "copied")


def test_what_skopeo_pushes_we_pull(tmp_path: Path, stores: Stores, target: Reference) -> None:
    root = seed_image(tmp_path / "a", "demo")
    login = ["--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}"]
    skopeo("copy", *login, f"oci:{tmp_path / 'a'}:demo", f"docker://{target}")
    done = pull(stores, target, LayoutReference(str(tmp_path / "b")))
    assert done.root.digest == root.digest
    described = json.loads(
        skopeo(
            "inspect", "--tls-verify=false", "--creds", f"{USER}:{PASSWORD}", f"docker://{target}"
        )
    )
    assert described["Digest"] == str(root.digest)
