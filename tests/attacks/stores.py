"""Attacks by whoever keeps the bytes: hidden, missing, altered, exchanged."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from attacks.cases import case
from nix_seed.core.digests import DiffID, Digest
from nix_seed.flake.rules.outline import SPEC_PATH
from nix_seed.formats.intoto.statement import LayerDigests
from nix_seed.formats.oci.manifest import Index, Manifest, MediaType, fallback_tag
from nix_seed.formats.oci.tar import FILE, TarEntry
from nix_seed.image.rules.layer import write_entries_layer
from nix_seed.image.rules.spec import build_image
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from support.attestations import put
from support.trust import COMMIT, MadeImage, World


def blob(world: World, digest: Digest) -> Path:
    return world.directory / "blobs/sha256" / digest.hex


def referrers(world: World, subject: Digest) -> Index:
    found = world.store.get_manifest(fallback_tag(subject))
    assert found is not None
    return Index.parse(found.body, "x")


def relist(world: World, subject: Digest, index: Index) -> None:
    world.store.put_manifest(index.dump(), MediaType.INDEX, fallback_tag(subject))


def bundle_of(world: World, number: int) -> Digest:
    """The blob of the bundle that is listed at *number* beside the image."""
    item = referrers(world, world.image.descriptor.digest).manifests[number]
    return Manifest.parse(blob(world, item.digest).read_bytes(), "x").layers[0].digest


@case(1, "carol built something else from this commit")
def dissent_hidden_beside_the_image_only(world: World) -> None:
    """Listed under the commit, whatever becomes of the list beside the image."""
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)
    relist(world, world.other.descriptor.digest, Index(()))


@case(0, "quorum met: 2 builders agree (alice, bob)")
def agreement_hidden_beside_the_image_only(world: World) -> None:
    world.publish("alice", "bob")
    relist(world, world.image.descriptor.digest, Index(()))


@case(0, "quorum met: 2 builders agree (alice, bob)")
def agreement_hidden_under_the_commit_only(world: World) -> None:
    world.publish("alice", "bob")
    relist(world, COMMIT.key, Index(()))


@case(1, "0 of the 2 builders wanted agree")
def everything_hidden(world: World) -> None:
    world.publish("alice", "bob", "carol")
    relist(world, COMMIT.key, Index(()))
    relist(world, world.image.descriptor.digest, Index(()))


@case(3, "is listed as a referrer of")
def listed_and_not_there(world: World) -> None:
    """What cannot be read may have been a dissent: not even a met quorum is a yes then."""
    world.publish("alice", "bob", "carol")
    item = referrers(world, world.image.descriptor.digest).manifests[0]
    blob(world, item.digest).unlink()


@case(3, "not everything could be checked")
def bundle_that_is_gone(world: World) -> None:
    world.publish("alice", "bob", "carol")
    blob(world, bundle_of(world, 0)).unlink()


@case(0, "does not have the digest or the size it is listed with")
def bundle_altered_in_the_store(world: World) -> None:
    """Bytes that do not have their digest are no evidence; two others suffice."""
    world.publish("alice", "bob", "carol")
    path = blob(world, bundle_of(world, 0))
    path.write_bytes(path.read_bytes().replace(b"payload", b"PAYLOAD", 1))


@case(1, "1 of the 2 builders wanted agree")
def bundles_altered_in_the_store(world: World) -> None:
    world.publish("alice", "bob", "carol")
    for number in (0, 1):
        path = blob(world, bundle_of(world, number))
        path.write_bytes(path.read_bytes().replace(b"payload", b"PAYLOAD", 1))


@case(1, "but points at")
def referrer_of_another_image_listed_here(world: World) -> None:
    world.publish("alice", "bob", image=world.other)
    relist(world, world.image.descriptor.digest, referrers(world, world.other.descriptor.digest))
    relist(world, COMMIT.key, Index(()))


@case(1, "alice, bob built something else from this commit")
def tag_moved_to_another_image(world: World) -> None:
    world.publish("alice", "bob")
    body = blob(world, world.other.descriptor.digest).read_bytes()
    world.store.put_manifest(body, MediaType.MANIFEST, "seed")


@case(1, "does not have the digest")
def manifest_altered_in_the_store(world: World) -> None:
    world.publish("alice", "bob")
    path = blob(world, world.image.descriptor.digest)
    path.write_bytes(path.read_bytes().replace(b"x86_64-linux", b"x86_64-Linux", 1))


@case(3, "No such file or directory")
def configuration_that_is_gone(world: World) -> None:
    world.publish("alice", "bob")
    manifest = Manifest.parse(blob(world, world.image.descriptor.digest).read_bytes(), "x")
    blob(world, manifest.config.digest).unlink()


@case(1, "is not valid JSON")
def list_that_is_no_json(world: World) -> None:
    world.publish("alice", "bob")
    text = b'{"manifests":['
    world.store.put_manifest(text, MediaType.INDEX, fallback_tag(world.image.descriptor.digest))


@case(2, "does not exist")
def image_that_is_not_there(world: World) -> None:
    world.reference = f"oci:{world.directory}:nothing"


@case(0, "3 layers, 2 store paths")
def deep_and_right(world: World) -> None:
    world.publish("alice", "bob")
    world.arguments.append("--deep")


@case(1, "layer 2")
def layer_altered_in_the_store(world: World) -> None:
    """The quorum is about the digest; only --deep looks at the bytes behind it."""
    world.publish("alice", "bob")
    world.arguments.append("--deep")
    path = blob(world, world.image.layers[1].digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@case(0, "quorum met")
def layer_altered_and_not_looked_at(world: World) -> None:
    world.publish("alice", "bob")
    blob(world, world.image.layers[1].digest).write_bytes(b"")


@case(1, "has no image for aarch64-linux")
def image_of_another_system(world: World) -> None:
    world.publish("alice", "bob")
    world.arguments += ["--system", "aarch64-linux"]


@case(1, "there is no image for aarch64-linux")
def index_that_lacks_a_system(world: World) -> None:
    world.publish("alice", "bob")
    world.head["systems"] = '["x86_64-linux", "aarch64-linux"]'
    index = Index((world.image.descriptor,))
    world.store.put_manifest(index.dump(), MediaType.INDEX, "index")
    world.reference = f"oci:{world.directory}:index"


@case(1, "has several images for one system")
def index_with_two_images_for_one_system(world: World) -> None:
    world.publish("alice", "bob")
    index = Index((world.image.descriptor, world.other.descriptor))
    world.store.put_manifest(index.dump(), MediaType.INDEX, "index")
    world.reference = f"oci:{world.directory}:index"


@case(1, "it states no narHash")
def image_of_another_maker(world: World) -> None:
    found = world.store.get_manifest("seed")
    assert found is not None
    value = json.loads(found.body)
    del value["annotations"]
    world.store.put_manifest(json.dumps(value).encode(), MediaType.MANIFEST, "seed")


@case(1, "carol built something else from this commit")
def second_copy_that_answers_nonsense(world: World) -> None:
    """What the first copy shows is judged all the same, and said."""
    world.publish("alice", "bob")
    world.publish("carol", image=world.other)
    copy = LayoutStore(Layout.create(world.root / "copy"))
    for subject in (world.image.descriptor.digest, COMMIT.key):
        copy.put_manifest(b'{"errors":["x"]}', MediaType.INDEX, fallback_tag(subject))
    world.arguments += ["--evidence", f"oci:{world.root / 'copy'}"]


def with_spec(world: World, text: bytes) -> MadeImage:
    """The tampered image, with *text* in the place of its spec."""
    good = world.other
    body = blob(world, good.descriptor.digest).read_bytes()
    old = zip(Manifest.parse(body, "x").layers, good.layers, strict=True)
    pairs = [(descriptor, said.diff_id) for descriptor, said in old][:-1]
    sink = io.BytesIO()
    entry = TarEntry(SPEC_PATH.encode(), FILE, 0o444, text)
    done = write_entries_layer([entry], good.spec.compressor, sink)
    pairs.append((done.descriptor, done.diff_id))
    put(world.store, sink.getvalue(), MediaType.LAYER_ZSTD)
    documents = build_image(good.spec, pairs)
    put(world.store, documents.config, MediaType.CONFIG)
    made = world.store.put_manifest(documents.manifest, MediaType.MANIFEST, "bomb")
    layers = tuple(LayerDigests(one.digest, DiffID(two.hex)) for one, two in pairs)
    return MadeImage(made, good.spec, layers)


@case(1, "bytes; 1048576 are read here")
def dissenter_with_a_spec_that_fills_memory(world: World) -> None:
    """Millions of empty lists: said is whose they are, and that nobody reads them."""
    world.publish("alice", "bob")
    world.publish("carol", image=with_spec(world, b"[" + b"[]," * (1 << 20) + b"0]"))


@case(1, "carol built something else from this commit")
def dissenter_with_counts_of_many_digits(world: World) -> None:
    """Its spec cannot be compared. That it dissents is all that needs to be known."""
    world.publish("alice", "bob")
    text = world.other.spec.dump().replace(b'"narSize":', b'"narSize":' + b"9" * 4300)
    world.publish("carol", image=with_spec(world, text))


@case(3, "is a link, a pipe or a device")
def pipe_in_place_of_a_layouts_image(world: World) -> None:
    world.publish("alice", "bob")
    path = blob(world, world.image.descriptor.digest)
    path.unlink()
    os.mkfifo(path)


@case(3, "is a link, a pipe or a device")
def endless_device_in_place_of_a_layouts_index(world: World) -> None:
    world.publish("alice", "bob")
    path = world.directory / "index.json"
    path.unlink()
    path.symlink_to("/dev/zero")


@case(3, "is a link, a pipe or a device")
def link_in_place_of_a_layouts_image(world: World) -> None:
    """Even one that leads to the right bytes: it may lead elsewhere a moment later."""
    world.publish("alice", "bob")
    path = blob(world, world.image.descriptor.digest)
    path.rename(world.root / "elsewhere")
    path.symlink_to(world.root / "elsewhere")
