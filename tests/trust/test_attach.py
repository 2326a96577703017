"""Attestations in a layout and in a registry: attached, and found wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.intoto.bundle import (
    BUNDLE_V03,
    ENVELOPE_LAYER,
    LARGEST_BUNDLE,
    Bundle,
    attestation_tag,
)
from nix_seed.formats.intoto.statement import BUILD_TYPE
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType, fallback_tag
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.registry.layout import Layout, open_image
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.store import ImageStore
from nix_seed.trust.attestations import attach_bundle, discover
from nix_seed.trust.sign import KeySigner
from support.attestations import predicate, push_image, put, signed
from support.registries import docker_registry
from support.repositories import Registry


@dataclass(frozen=True)
class Scene:
    """A store with an image, and a bundle that is about it."""

    store: ImageStore
    image: Descriptor
    bundle: bytes

    def attach(self) -> Descriptor:
        return attach_bundle(self.store, self.image, self.bundle, BUILD_TYPE)

    def list_at_tag(self, *listed: Descriptor) -> None:
        """Write the list of referrers anew, as a liar would."""
        tag = fallback_tag(self.image.digest)
        self.store.put_manifest(Index(listed).dump(), MediaType.INDEX, tag)


@pytest.fixture(params=["layout", "registry"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    if request.param == "layout":
        yield prepared(LayoutStore(Layout.create(tmp_path / "layout")))
        return
    with docker_registry(tmp_path / "registry", password=False) as running:
        yield prepared(Registry(running.host).repository("owner/project"))


def prepared(store: ImageStore) -> Scene:
    image = push_image(store)
    return Scene(store, image, signed(KeySigner.generate(), predicate(image_digest=image.digest)))


def test_nothing_is_found_before(scene: Scene) -> None:
    assert discover(scene.store, scene.image.digest).attestations == ()


def test_what_is_attached_is_found(scene: Scene) -> None:
    entry = scene.attach()
    found = discover(scene.store, scene.image.digest)
    assert [each.text for each in found.attestations] == [scene.bundle]
    assert found.troubles == ()
    assert found.attestations[0].place == f"{scene.store}@{entry.digest}"


def test_the_manifest_is_cosigns(scene: Scene) -> None:
    entry = scene.attach()
    fetched = scene.store.get_manifest(entry.digest)
    assert fetched is not None
    manifest = Manifest.parse(fetched.body, "it")
    assert manifest.artifact_type == BUNDLE_V03
    assert manifest.config.media_type == MediaType.EMPTY
    assert b"".join(scene.store.open_blob(manifest.config)) == b"{}"
    assert [layer.media_type for layer in manifest.layers] == [BUNDLE_V03]
    assert manifest.subject == Descriptor(MediaType.MANIFEST, scene.image.digest, scene.image.size)
    assert manifest.annotations == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": BUILD_TYPE,
        "org.opencontainers.image.created": "2025-01-31T12:34:56Z",
        "org.opencontainers.image.revision": "0123456789abcdef0123456789abcdef01234567",
        "org.opencontainers.image.source": "https://forge.example/owner/project",
        "org.opencontainers.image.title": "project",
    }
    listed = scene.store.get_manifest(fallback_tag(scene.image.digest))
    assert listed is not None
    assert Index.parse(listed.body, "it").manifests == (entry,)


def test_attaching_again_changes_nothing(scene: Scene) -> None:
    assert scene.attach() == scene.attach()
    assert len(discover(scene.store, scene.image.digest).attestations) == 1


def test_several_builders_attestations_are_all_found(scene: Scene) -> None:
    made = predicate(image_digest=scene.image.digest)
    texts = {signed(KeySigner.generate(), made) for _ in range(5)}
    for text in texts:
        attach_bundle(scene.store, scene.image, text, BUILD_TYPE)
    found = discover(scene.store, scene.image.digest)
    assert {each.text for each in found.attestations} == texts


def test_an_image_that_is_not_there(scene: Scene) -> None:
    absent = replace(scene.image, digest=Digest.of(b"absent"))
    with pytest.raises(InputError, match=f"has no image {absent.digest} to attach") as caught:
        attach_bundle(scene.store, absent, scene.bundle, BUILD_TYPE)
    assert caught.value.hint == "push the image first"


def test_the_image_stays_the_only_one_of_a_layout(tmp_path: Path) -> None:
    store = LayoutStore(Layout.create(tmp_path / "layout"))
    scene = prepared(store)
    scene.attach()
    assert store.only_image().digest == scene.image.digest
    reference = LayoutReference.parse(f"oci:{tmp_path}/layout")
    assert open_image(reference).digest == scene.image.digest


def test_a_referrer_in_a_layouts_own_index_is_found(tmp_path: Path) -> None:
    # As oras writes it: listed in index.json without a tag, and nowhere else.
    layout = Layout.create(tmp_path / "layout")
    scene = prepared(LayoutStore(layout))
    entry = scene.attach()
    index = layout.index()
    kept = [item for item in index.manifests if item.digest == scene.image.digest]
    bare = replace(entry, annotations={})
    (tmp_path / "layout/index.json").write_bytes(Index((*kept, bare)).dump())
    assert len(discover(scene.store, scene.image.digest).attestations) == 1


def test_a_list_with_another_artifact_type_hides_nothing(scene: Scene) -> None:
    entry = scene.attach()
    scene.list_at_tag(replace(entry, artifact_type="application/x-nothing", annotations={}))
    assert len(discover(scene.store, scene.image.digest).attestations) == 1


def test_another_images_attestation_is_named(scene: Scene) -> None:
    entry = scene.attach()
    stranger = Digest.of(b"stranger")
    scene.store.put_manifest(Index((entry,)).dump(), MediaType.INDEX, fallback_tag(stranger))
    found = discover(scene.store, stranger)
    assert found.attestations == ()
    (trouble,) = found.troubles
    assert isinstance(trouble, CheckedFalse)
    assert trouble.message == (
        f"{scene.store}@{entry.digest} is listed as a referrer of {stranger}, "
        f"but points at {scene.image.digest}"
    )


def test_a_missing_referrer_hides_no_other(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    scene = prepared(LayoutStore(layout))
    scene.attach()
    other = signed(KeySigner.generate(), predicate(image_digest=scene.image.digest))
    gone = attach_bundle(scene.store, scene.image, other, BUILD_TYPE)
    layout.blob_path(gone.digest).unlink()
    found = discover(scene.store, scene.image.digest)
    assert [each.text for each in found.attestations] == [scene.bundle]
    (trouble,) = found.troubles
    assert isinstance(trouble, CouldNotCheck)
    assert trouble.message == (
        f"{scene.store}@{gone.digest} is listed as a referrer of {scene.image.digest}, "
        "but is not there"
    )


def test_an_oversized_bundle_is_not_read(scene: Scene) -> None:
    layer = replace(put(scene.store, b"small", BUNDLE_V03), size=LARGEST_BUNDLE + 1)
    manifest = Manifest(
        put(scene.store, b"{}", MediaType.EMPTY),
        (layer,),
        artifact_type=BUNDLE_V03,
        subject=scene.image,
    )
    scene.store.attach(manifest.dump())
    found = discover(scene.store, scene.image.digest)
    assert found.attestations == ()
    assert "has 4194305 bytes; 4194304 are the most read" in found.troubles[0].message


def test_a_bad_layer_at_cosigns_tag_hides_no_other(scene: Scene) -> None:
    envelope = Bundle.parse(scene.bundle, "it").envelope.dump()
    layers = [put(scene.store, data, ENVELOPE_LAYER) for data in (b"not JSON", envelope)]
    manifest = Manifest(put(scene.store, b"{}", MediaType.CONFIG), tuple(layers))
    tag = attestation_tag(scene.image.digest)
    scene.store.put_manifest(manifest.dump(), MediaType.MANIFEST, tag)
    found = discover(scene.store, scene.image.digest)
    assert [Bundle.parse(each.text, "it").envelope.dump() for each in found.attestations] == [
        envelope
    ]
    (trouble,) = found.troubles
    assert isinstance(trouble, CheckedFalse)
    assert "is not valid JSON" in trouble.message


def test_other_artifacts_are_passed_over(scene: Scene) -> None:
    manifest = Manifest(
        put(scene.store, b"{}", MediaType.EMPTY),
        (put(scene.store, b"{}", "application/json"),),
        artifact_type="application/vnd.cyclonedx+json",
        subject=scene.image,
    )
    scene.store.attach(manifest.dump())
    found = discover(scene.store, scene.image.digest)
    assert found.attestations == ()
    assert found.troubles == ()
