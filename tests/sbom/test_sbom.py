"""Bills of materials: what is said, what is left unsaid, and that both formats' schemas take it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from hypothesis import HealthCheck, given, settings, strategies as st

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.errors import CheckedFalse
from nix_seed.flake.rules.licence import Licence
from nix_seed.flake.rules.names import Package
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.image.rules.partition.plan import Group
from nix_seed.image.rules.spec import Spec
from nix_seed.licences.rules.judge import Withheld
from nix_seed.sbom.cyclonedx import write_cyclonedx
from nix_seed.sbom.rules.sbom import Origin, Sbom, build_sbom, check_describes, read_licences
from nix_seed.sbom.rules.spdx import write_spdx
from support.sboms import IMAGE, manifest_of, valid_cyclonedx, valid_spdx
from support.specs import path_info, store_path, tiny_spec

GOLDEN = Path(__file__).parent / "golden"
BASH, GLIBC, GCC, CUDA = map(store_path, ["bash-5.2", "glibc-2.36", "gcc-12.2.0", "cuda-12.0"])
FORMATS: dict[str, Callable[[Sbom], bytes]] = {"cyclonedx": write_cyclonedx, "spdx": write_spdx}
ORIGINS = {
    BASH: Origin(
        package=Package("bash", "5.2", "out"),
        derivation=store_path("bash-5.2.drv"),
        declared="gpl-3.0-or-later",
        status="redistributable",
        url="https://ftp.example/bash-5.2.tar.gz",
        fetched=True,
    ),
    GLIBC: Origin(
        package=Package("glibc", "2.36", "out"),
        derivation=store_path("glibc-2.36.drv"),
        concluded="LGPL-2.1-or-later AND (MIT OR ISC)",
        status="redistributable",
        url="https://glibc.example/",
    ),
    GCC: Origin(
        package=Package("gcc", "12.2.0", "out"),
        declared="<script>alert('\u202e\"')</script>",
        status="unknown",
        url="mirror://gnu/gcc.tar.xz",
        fetched=True,
    ),
}


def sbom(spec: Spec | None = None, origins: dict[StorePath, Origin] | None = None) -> Sbom:
    spec = spec or tiny_spec()
    return build_sbom(IMAGE, manifest_of(spec), spec, origins)


def spec_of(*infos: PathInfo) -> Spec:
    paths = {info.path: info for info in infos}
    return replace(tiny_spec(), paths=paths, layers=(Group("base", tuple(sorted(paths))),))


def cyclonedx_of(document: Any, path: StorePath) -> Any:
    [item] = [each for each in document["components"] if each["bom-ref"] == str(path)]
    return item | {"said": {each["name"]: each["value"] for each in item["properties"]}}


def spdx_of(document: Any, path: StorePath) -> Any:
    for item in document["packages"]:
        said = json.loads(item["annotations"][0]["comment"])
        if said.get("io.nix-seed.store-path") == str(path):
            return item | {"said": said}
    raise AssertionError(path)


@pytest.mark.parametrize("name", FORMATS)
def test_golden_bytes(name: str) -> None:
    """Any change to them is one that makes every attached bill of materials another one."""
    text = FORMATS[name](sbom(origins=ORIGINS))
    golden = (GOLDEN / f"tiny-sbom-{name}.json").read_text()
    # The golden file is indented for people; the bytes are canonical.
    assert text == canonical_json.dumps(json.loads(golden))


def test_the_image_is_what_it_is_about() -> None:
    found = sbom()
    document = valid_cyclonedx(write_cyclonedx(found))
    image = document["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", "tiny", str(IMAGE))
    assert image["hashes"] == [{"alg": "SHA-256", "content": IMAGE.hex}]
    assert image["purl"] == f"pkg:oci/tiny@{IMAGE}?arch=amd64"
    assert "timestamp" not in document["metadata"]
    other = valid_spdx(write_spdx(found))
    assert other["packages"][0]["checksums"] == [
        {"algorithm": "SHA256", "checksumValue": IMAGE.hex}
    ]
    assert other["creationInfo"]["created"] == "1970-01-01T00:00:01Z"
    assert other["documentNamespace"] == document["serialNumber"]


def test_of_an_image_alone_nothing_is_guessed() -> None:
    found = sbom()
    document, other = valid_cyclonedx(write_cyclonedx(found)), valid_spdx(write_spdx(found))
    bash = cyclonedx_of(document, BASH)
    assert (bash["name"], bash["version"]) == ("bash", "5.2")
    assert "licenses" not in bash
    assert "externalReferences" not in bash
    # The hash of a NAR is the hash of no file, so it is no `hashes`.
    assert "hashes" not in bash
    assert bash["said"]["io.nix-seed.nar-sha256"] == NarHash.of(b"bash-5.2").hex
    assert bash["said"]["io.nix-seed.nar-size"] == "2000"
    assert bash["said"]["io.nix-seed.tier"] == "base"
    assert bash["said"]["io.nix-seed.layer"] == str(Digest.of(b"layer 0"))
    package = spdx_of(other, BASH)
    assert package["said"] == bash["said"]
    for member in ("licenseConcluded", "licenseDeclared", "copyrightText", "supplier"):
        assert package[member] == "NOASSERTION"


def test_what_a_flake_says_is_added() -> None:
    found = sbom(origins=ORIGINS)
    document, other = valid_cyclonedx(write_cyclonedx(found)), valid_spdx(write_spdx(found))
    bash, glibc, gcc = (cyclonedx_of(document, path) for path in (BASH, GLIBC, GCC))
    assert bash["licenses"] == [
        {"license": {"id": "GPL-3.0-or-later", "acknowledgement": "declared"}}
    ]
    assert glibc["licenses"] == [
        {"expression": "LGPL-2.1-or-later AND (MIT OR ISC)", "acknowledgement": "concluded"}
    ]
    assert gcc["licenses"] == [
        {"license": {"name": ORIGINS[GCC].declared, "acknowledgement": "declared"}}
    ]
    assert bash["purl"] == f"pkg:nix/bash@5.2?output=out&outputhash={BASH.hash_part}"
    assert bash["externalReferences"] == [
        {"type": "source-distribution", "url": "https://ftp.example/bash-5.2.tar.gz"}
    ]
    assert glibc["externalReferences"] == [{"type": "website", "url": "https://glibc.example/"}]
    # What is no web address is told, and is no link.
    assert "externalReferences" not in gcc
    assert gcc["said"]["io.nix-seed.url"] == "mirror://gnu/gcc.tar.xz"
    package = spdx_of(other, BASH)
    assert package["licenseDeclared"] == "GPL-3.0-or-later"
    assert package["sourceInfo"] == "fetched from https://ftp.example/bash-5.2.tar.gz"
    assert spdx_of(other, GLIBC)["licenseConcluded"] == "LGPL-2.1-or-later AND (MIT OR ISC)"
    assert spdx_of(other, GLIBC)["licenseDeclared"] == "NOASSERTION"
    reference = spdx_of(other, GCC)["licenseDeclared"]
    [extracted] = [
        each for each in other["hasExtractedLicensingInfos"] if each["licenseId"] == reference
    ]
    assert extracted["name"] == ORIGINS[GCC].declared


def test_references_are_dependencies() -> None:
    document = valid_cyclonedx(write_cyclonedx(sbom()))
    depends = {item["ref"]: item.get("dependsOn", []) for item in document["dependencies"]}
    assert depends[str(GCC)] == sorted(map(str, [BASH, GLIBC]))
    assert depends[str(GLIBC)] == []  # its reference to itself is none
    assert depends[document["metadata"]["component"]["bom-ref"]] == sorted(map(str, [GCC, CUDA]))
    other = valid_spdx(write_spdx(sbom()))
    said = {
        (item["spdxElementId"], item["relationshipType"], item["relatedSpdxElement"])
        for item in other["relationships"]
    }
    gcc, bash, cuda = (spdx_of(other, path)["SPDXID"] for path in (GCC, BASH, CUDA))
    layer = f"SPDXRef-layer-{Digest.of(b'layer 0').hex}"
    assert {
        ("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"),
        ("SPDXRef-image", "CONTAINS", layer),
        (layer, "CONTAINS", bash),
        (gcc, "DEPENDS_ON", bash),
        ("SPDXRef-image", "HAS_PREREQUISITE", cuda),
    } <= said
    assert not [one for one in said if one[1:] == ("CONTAINS", cuda)]


def test_what_was_withheld_is_marked() -> None:
    document, other = valid_cyclonedx(write_cyclonedx(sbom())), valid_spdx(write_spdx(sbom()))
    for cuda in (cyclonedx_of(document, CUDA), spdx_of(other, CUDA)):
        said = cuda["said"]
        assert said["io.nix-seed.withheld"] == "true"
        assert said["io.nix-seed.derivation"] == "/nix/store/x.drv"
        assert not {"io.nix-seed.layer", "io.nix-seed.nar-sha256"} & said.keys()
    assert cyclonedx_of(document, CUDA)["licenses"] == [
        {"license": {"name": "unfree", "acknowledgement": "concluded"}}
    ]


def test_why_it_was_withheld_may_be_no_licence() -> None:
    remark = Withheld(CUDA, "cuda-12.0", "withheld by the recipe", "")
    found = sbom(replace(tiny_spec(), withheld=(remark,)))
    assert "licenses" not in cyclonedx_of(valid_cyclonedx(write_cyclonedx(found)), CUDA)
    assert spdx_of(valid_spdx(write_spdx(found)), CUDA)["licenseConcluded"] == "NOASSERTION"


def test_the_serial_number_follows_from_the_image_and_what_is_said() -> None:
    one, other = sbom(), sbom(origins=ORIGINS)
    assert one.serial == sbom().serial
    assert one.serial != other.serial
    assert replace(one, image=Digest.of(b"another")).serial != one.serial
    assert one.serial.version == 5


def test_flake_inputs_are_named() -> None:
    spec = spec_of(path_info("source", 10))
    source = store_path("source")
    spec = replace(spec, inputs={"nixpkgs": str(source), "again": str(source)})
    properties = cyclonedx_of(valid_cyclonedx(write_cyclonedx(sbom(spec))), source)["properties"]
    names = [each for each in properties if each["name"] == "io.nix-seed.flake-input"]
    assert [each["value"] for each in names] == ["again", "nixpkgs"]
    said = spdx_of(valid_spdx(write_spdx(sbom(spec))), source)["said"]
    assert said["io.nix-seed.flake-input"] == ["again", "nixpkgs"]


def test_circles_are_reached_too() -> None:
    spec = spec_of(
        path_info("a-1", 1, "b-1"), path_info("b-1", 1, "a-1"), path_info("c-1", 1, "a-1")
    )
    assert sbom(spec).tops == tuple(sorted([store_path("c-1"), CUDA]))
    alone = spec_of(path_info("a-1", 1, "b-1"), path_info("b-1", 1, "a-1"))
    assert len([top for top in sbom(alone).tops if top != CUDA]) == 1
    valid_cyclonedx(write_cyclonedx(sbom(alone)))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    licence=st.text(max_size=80),
    url=st.text(max_size=80) | st.text(max_size=30).map(lambda text: f"https://x.example/{text}"),
    name=st.text("abcXYZ0189+-._?=", min_size=1, max_size=200),
    image=st.text(max_size=40),
)
def test_hostile_words_are_only_words(licence: str, url: str, name: str, image: str) -> None:
    path = store_path(name)
    spec = replace(
        spec_of(path_info(name, 5)),
        name=image,
        withheld=(Withheld(CUDA, "cuda", licence, licence, url),),
    )
    origin = Origin(Package(name, licence), None, licence, "", "unknown", url, True)
    found = sbom(spec, {path: origin})
    check_describes(write_cyclonedx(found), "cyclonedx", sbom(spec), "here")
    check_describes(write_spdx(found), "spdx", sbom(spec), "here")
    item = cyclonedx_of(valid_cyclonedx(write_cyclonedx(found)), path)
    assert item["name"] == name
    package = spdx_of(valid_spdx(write_spdx(found)), path)
    assert package["name"] == name


def test_names_that_differ_in_strange_characters_stay_apart() -> None:
    one, other = (StorePath(f"{'0' * 32}-a{char}b") for char in "+-")
    infos = [PathInfo(path, NarHash.of(b"x"), 1, ()) for path in (one, other)]
    document = valid_spdx(write_spdx(sbom(spec_of(*infos))))
    assert spdx_of(document, one)["SPDXID"] != spdx_of(document, other)["SPDXID"]


@pytest.mark.slow
def test_thousands_of_store_paths() -> None:
    names = [f"package{number}-1.{number}" for number in range(5000)]
    spec = spec_of(
        *(
            path_info(name, 1, *(names[number // step] for step in (2, 3, 5)))
            for number, name in enumerate(names)
        )
    )
    found = sbom(spec)
    for name, write in FORMATS.items():
        text = write(found)
        check_describes(text, name, found, "here")  # type: ignore[arg-type]
    assert len(found.components) == 5001


@pytest.mark.parametrize("name", FORMATS)
def test_a_bill_of_another_image_is_refused(name: str) -> None:
    text = FORMATS[name](replace(sbom(), image=Digest.of(b"another")))
    with pytest.raises(CheckedFalse, match=r"^here is of the image sha256:.*, not of sha256:"):
        check_describes(text, name, sbom(), "here")  # type: ignore[arg-type]


LIES: dict[str, Callable[[Spec], Spec]] = {
    "a hash": lambda spec: replace(
        spec, paths={**spec.paths, BASH: replace(spec.paths[BASH], nar_hash=NarHash.of(b"lie"))}
    ),
    "a reference": lambda spec: replace(
        spec, paths={**spec.paths, BASH: replace(spec.paths[BASH], references=())}
    ),
    "what is withheld": lambda spec: replace(spec, withheld=()),
    "a path": lambda spec: replace(
        spec,
        paths={**spec.paths, store_path("x-1"): path_info("x-1", 1)},
        layers=(spec.layers[0], Group("toolchain", tuple(sorted([GCC, store_path("x-1")])))),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_the_image_is_refused(name: str, lie: str) -> None:
    text = FORMATS[name](sbom(LIES[lie](tiny_spec())))
    with pytest.raises(
        CheckedFalse, match=r"^here says of 1 store paths what the image does not, first /nix"
    ):
        check_describes(text, name, sbom(), "here")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_one_part_told_twice_is_refused(name: str) -> None:
    value = json.loads(FORMATS[name](sbom()))
    parts = value["components" if name == "cyclonedx" else "packages"]
    parts.append(parts[-1])
    with pytest.raises(CheckedFalse, match="here lists 5 parts; the image has 4"):
        check_describes(json.dumps(value).encode(), name, sbom(), "here")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b'{"components": 3}', b"\xff"])
def test_what_is_no_bill_of_materials_is_refused(name: str, text: bytes) -> None:
    with pytest.raises(CheckedFalse, match="here is not"):
        check_describes(text, name, sbom(), "here")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_licences_are_read_back(name: str) -> None:
    found = read_licences(FORMATS[name](sbom(origins=ORIGINS)), name, "here")  # type: ignore[arg-type]
    assert found[BASH].licence == Licence("GPL-3.0-or-later", "redistributable")
    assert found[BASH].derivation == ORIGINS[BASH].derivation
    assert found[BASH].url == ORIGINS[BASH].url
    assert found[GLIBC].licence == Licence(ORIGINS[GLIBC].concluded, "redistributable")
    assert (found[GLIBC].declared, found[GLIBC].url) == ("", ORIGINS[GLIBC].url)
    assert found[GCC].licence == Licence(ORIGINS[GCC].declared, "unknown")
    assert found[GCC].url == ORIGINS[GCC].url
    # Of an image alone, what is not withheld is unknown.
    alone = read_licences(FORMATS[name](sbom()), name, "here")  # type: ignore[arg-type]
    assert alone[BASH].licence == Licence("", "unknown")


@pytest.mark.parametrize("name", FORMATS)
def test_a_status_of_ones_own_is_refused(name: str) -> None:
    text = FORMATS[name](sbom(origins=ORIGINS)).replace(b"redistributable", b"do as you like")
    with pytest.raises(CheckedFalse, match="here is not a bill of materials as nix-seed writes it"):
        read_licences(text, name, "here")  # type: ignore[arg-type]


def test_the_library_reads_its_own_document_back() -> None:
    document = json.loads(write_cyclonedx(sbom(origins=ORIGINS)))
    read = Bom.from_json(document)  # type: ignore[attr-defined]
    assert read.validate()
    assert {item.bom_ref.value for item in read.components} == {
        str(path) for path in (BASH, GLIBC, GCC, CUDA)
    }
