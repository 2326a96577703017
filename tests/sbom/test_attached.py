"""Bills of materials attached to an image on disk: lies, others' and several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nix_seed.formats.oci.manifest import Descriptor, Manifest
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.sbom.sbom import MEDIA_TYPES
from nix_seed.trust.attestations import list_document
from support import sbom_project
from support.sbom_project import sbom
from support.seeds import build, nix_seed


@pytest.fixture(scope="module")
def project(distribution: Path) -> Path:
    return sbom_project.project()


@pytest.fixture
def layout(project: Path, cache: Path, tmp_path: Path) -> str:
    """An image on disk with nothing attached."""
    build(project, "-o", tmp_path / "image", "--tag", "dev", cache=cache)
    return f"oci:{tmp_path / 'image'}:dev"


def attach(layout: str, text: bytes, form: str = "cyclonedx") -> Descriptor:
    """Attach any text to the image as a bill of materials of it."""
    directory, _, tag = layout.removeprefix("oci:").rpartition(":")
    store = LayoutStore(Layout.open(Path(directory)))
    image = store.head_manifest(tag)
    assert image is not None
    return list_document(store, image, text, MEDIA_TYPES[form])  # type: ignore[index]


def test_none_attached_is_said_so(layout: str, cache: Path) -> None:
    ran = nix_seed("sbom", layout, "--attached", cache=cache)
    assert ran.code == 2
    assert f"{layout} has no cyclonedx bill of materials attached" in ran.err


def test_a_lie_that_is_attached_is_refused(layout: str, cache: Path) -> None:
    value = json.loads(sbom(layout, cache=cache))
    [first, *_] = value["components"]
    for each in first["properties"]:
        if each["name"] == "io.nix-seed.nar-sha256":
            each["value"] = "0" * 64
    attach(layout, json.dumps(value).encode())
    ran = nix_seed("sbom", layout, "--attached", cache=cache)
    assert ran.code == 1
    assert f"no bill of materials attached to {layout} describes it" in ran.err
    assert f"says of 1 store paths what the image does not, first {first['bom-ref']}" in ran.err
    # What the image itself tells is still told.
    ran = nix_seed("licences", layout, cache=cache)
    assert ran.code == 0
    withheld, *unknown = ran.out.splitlines()
    assert withheld == "withheld  vendor-tool-4.0  vendor-eula"
    assert "unknown   unstated  none stated" in unknown
    assert f"note: no bill of materials attached to {layout} describes it" in ran.err


def test_others_that_are_attached_do_not_hide_ours(layout: str, project: Path, cache: Path) -> None:
    attach(layout, b'{"bomFormat": "CycloneDX", "components": []}')
    attach(layout, b"\xff not JSON")
    ours = sbom(layout, "--flake", project, cache=cache)
    attach(layout, ours)
    assert sbom(layout, "--attached", cache=cache) == ours


def test_two_that_differ_must_be_chosen_from(layout: str, project: Path, cache: Path) -> None:
    plain = sbom(layout, cache=cache)
    one = attach(layout, plain)
    other = attach(layout, sbom(layout, "--flake", project, cache=cache))
    ran = nix_seed("sbom", layout, "--attached", cache=cache)
    assert ran.code == 2
    assert "has 2 cyclonedx bills of materials attached, which differ" in ran.err
    assert f"--attached-digest {one.digest}" in ran.err
    assert f"--attached-digest {other.digest}" in ran.err
    assert sbom(layout, "--attached-digest", str(one.digest), cache=cache) == plain


def test_a_blob_that_is_not_its_digest_is_refused(layout: str, cache: Path) -> None:
    entry = attach(layout, sbom(layout, cache=cache))
    directory = Path(layout.removeprefix("oci:").rpartition(":")[0])
    manifest = Manifest.parse((directory / "blobs/sha256" / entry.digest.hex).read_bytes(), "it")
    blob = directory / "blobs/sha256" / manifest.layers[0].digest.hex
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"listed", b"l1sted"))
    ran = nix_seed("sbom", layout, "--attached", cache=cache)
    assert ran.code == 1
    assert "does not have the digest or the size it is listed with" in ran.err
