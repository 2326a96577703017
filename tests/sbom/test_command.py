"""``nix-seed sbom`` on real images, and its bills of materials beside them in real registries."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.digests import Digest
from nix_seed.formats.oci.manifest import fallback_tag
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.sbom.sbom import MEDIA_TYPES
from nix_seed.trust.sign import KeySigner, write_key_pair
from support import built, sbom_project
from support.distribution import commit, nix_env
from support.goprograms import installed
from support.programs import need
from support.registries import PASSWORD, USER, Running, docker_registry, referrers_registry
from support.repositories import Registry
from support.sbom_project import SOURCE, sbom
from support.sboms import valid_cyclonedx, valid_spdx
from support.seed_images import seed_image
from support.seeds import Ran, build, nix_seed

LOGIN = {"NIX_SEED_REGISTRY_USERNAME": USER, "NIX_SEED_REGISTRY_PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def project(distribution: Path) -> Path:
    return sbom_project.project()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "k"
    write_key_pair(KeySigner.generate(), path)
    return path


def named(document: Any, name: str) -> dict[str, Any]:
    """Return the one CycloneDX component of this name, with its properties as ``said``."""
    item: dict[str, Any]
    [item] = [each for each in document["components"] if each["name"] == name]
    return item | {"said": {each["name"]: each["value"] for each in item["properties"]}}


def test_of_a_real_image_alone(cache: Path) -> None:
    """Every store path of the demo distribution's seed, with its hash and its references."""
    layout = built.layout("seed")
    text = sbom(f"oci:{layout}", cache=cache)
    document = valid_cyclonedx(text)
    image = nix_seed("inspect", f"oci:{layout}", "--json", cache=cache)
    digest = json.loads(image.out)["digest"]
    assert document["metadata"]["component"]["version"] == digest
    paths = [item["bom-ref"] for item in document["components"]]
    query = ["nix", "path-info", "--json", *paths]
    done = subprocess.run(query, env=nix_env(), check=True, capture_output=True)
    known = {item["path"]: item for item in json.loads(done.stdout)}
    depends = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    assert len(paths) > 100
    for item in document["components"]:
        said = {each["name"]: each["value"] for each in item["properties"]}
        info = known[item["bom-ref"]]
        raw = base64.b64decode(info["narHash"].removeprefix("sha256-"))
        assert said["io.nix-seed.nar-sha256"] == raw.hex()
        assert said["io.nix-seed.nar-size"] == str(info["narSize"])
        assert depends[item["bom-ref"]] == sorted(set(info["references"]) - {item["bom-ref"]})
        assert "licenses" not in item
    assert sbom(f"oci:{layout}", cache=cache) == text
    valid_spdx(sbom(f"oci:{layout}", "--format", "spdx", cache=cache))


def test_standard_output_holds_the_same_bytes(cache: Path) -> None:
    layout = built.layout("run")
    ran = nix_seed("sbom", f"oci:{layout}", cache=cache)
    assert ran.out.encode() == sbom(f"oci:{layout}", cache=cache)
    assert ran.err == ""


@pytest.fixture(scope="module")
def document(project: Path, cache: Path) -> Any:
    """The bill of materials of the seed that ``nix-seed build`` left in the cache."""
    build(project, cache=cache)
    return valid_cyclonedx(sbom(project, cache=cache))


def test_a_flake_tells_licences_and_derivations(document: Any) -> None:
    listed = named(document, "listed")
    assert listed["version"] == "1.0"
    assert listed["licenses"] == [{"license": {"id": "MIT", "acknowledgement": "declared"}}]
    assert listed["externalReferences"] == [{"type": "website", "url": "https://listed.example/"}]
    assert listed["said"]["io.nix-seed.derivation"].endswith("-listed-1.0.drv")
    assert listed["said"]["io.nix-seed.output"] == "out"
    assert listed["said"]["io.nix-seed.licence-status"] == "redistributable"
    either = named(document, "either")
    assert either["version"] == "3.0-beta"
    assert either["licenses"] == [
        {"expression": "MIT OR Apache-2.0", "acknowledgement": "declared"}
    ]
    assert named(document, "homegrown")["licenses"] == [
        {"license": {"name": 'Our own, "1" & <b>', "acknowledgement": "declared"}}
    ]
    tier = {each["value"] for each in listed["properties"] if each["name"].endswith(".tier")}
    assert tier == {"packages"}


def test_what_nobody_states_is_left_out(document: Any, project: Path, cache: Path) -> None:
    unstated = named(document, "unstated")
    assert "licenses" not in unstated
    assert "version" not in unstated
    assert unstated["said"]["io.nix-seed.licence-status"] == "unknown"
    other = valid_spdx(sbom(project, "--format", "spdx", cache=cache))
    [package] = [each for each in other["packages"] if each["name"] == "unstated"]
    assert package["licenseDeclared"] == package["licenseConcluded"] == "NOASSERTION"


def test_what_is_withheld_is_told(document: Any) -> None:
    vendor = named(document, "vendor-tool")
    assert vendor["said"]["io.nix-seed.withheld"] == "true"
    assert vendor["said"]["io.nix-seed.licence-status"] == "withheld"
    assert "io.nix-seed.layer" not in vendor["said"]
    assert vendor["licenses"] == [
        {"license": {"name": "vendor-eula", "acknowledgement": "declared"}}
    ]


def test_a_flake_without_an_image_is_told_to_build(project: Path, tmp_path: Path) -> None:
    ran = nix_seed("sbom", project, cache=tmp_path)
    assert ran.code == 2
    assert f"no seed image of {project} has been built here" in ran.err
    assert f"nix-seed build {project}" in ran.err


def test_an_image_of_another_flake_is_refused(project: Path, cache: Path) -> None:
    layout = built.layout("seed")
    ran = nix_seed("sbom", f"oci:{layout}", "--flake", project, cache=cache)
    assert ran.code == 1
    assert "store paths that this flake knows nothing of, first /nix/store/" in ran.err
    assert "name the flake, at the commit, that the image was built from" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attached",), "is a flake, and --attached is about an image"),
        (("--flake", "."), "is a flake, and --flake is about an image"),
    ],
)
def test_options_that_mean_nothing_together(
    arguments: tuple[str, ...], message: str, project: Path, cache: Path
) -> None:
    ran = nix_seed("sbom", project, *arguments, cache=cache)
    assert ran.code == 2
    assert message in ran.err


def test_attached_and_computed_are_two_things(cache: Path) -> None:
    ran = nix_seed("sbom", "oci:x", "--attached", "--flake", ".", cache=cache)
    assert ran.code == 2
    assert "--attached reads what is there, --flake computes it anew" in ran.err


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def publish(
    project: Path, reference: str, key: Path, cache: Path, *arguments: str, login: bool = True
) -> Ran:
    who = ("--key", key, "--builder", "b")
    return nix_seed(
        *("publish", reference, "--flake", project),
        *who,
        *arguments,
        cache=cache,
        env=LOGIN if login else None,
    )


@pytest.fixture(scope="module")
def published(running: Running, project: Path, key: Path, cache: Path) -> str:
    reference = f"{running.host}/demo/sbom:dev"
    ran = publish(project, reference, key, cache)
    assert ran.code == 0, ran.err
    return reference


@pytest.mark.parametrize("form", ["cyclonedx", "spdx"])
def test_what_was_attached_is_computed_again_byte_for_byte(
    form: str, published: str, project: Path, cache: Path, tmp_path: Path
) -> None:
    attached = sbom(published, "--attached", "--format", form, cache=cache, env=LOGIN)
    again = sbom(published, "--flake", project, "--format", form, cache=tmp_path, env=LOGIN)
    assert attached == again
    {"cyclonedx": valid_cyclonedx, "spdx": valid_spdx}[form](attached)
    assert b"listed.example" in attached


def test_an_attached_one_is_offered(published: str, cache: Path) -> None:
    ran = nix_seed("sbom", published, cache=cache, env=LOGIN)
    assert ran.code == 0, ran.err
    assert b"listed.example" not in ran.out.encode()
    assert f"note: {published} has 1 attached" in ran.err


def test_publishing_again_attaches_nothing_new(
    running: Running, project: Path, key: Path, cache: Path
) -> None:
    # A repository of its own: the second attestation is nothing that other tests are to find.
    twice = f"{running.host}/demo/twice:dev"
    assert publish(project, twice, key, cache).code == 0
    repository = Registry(
        running.host, keyring=Keyring(given=Credential("the test", USER, PASSWORD))
    ).repository("demo/twice")
    image = repository.head_manifest("dev")
    assert image is not None
    before = {form: repository.referrers(image.digest, kind) for form, kind in MEDIA_TYPES.items()}
    assert [len(found) for found in before.values()] == [1, 1]
    assert publish(project, twice, key, cache).code == 0
    after = {form: repository.referrers(image.digest, kind) for form, kind in MEDIA_TYPES.items()}
    assert after == before
    # Debian's registry has no referrers API: the fallback tag lists them, with their types.
    tagged = repository.get_manifest(fallback_tag(image.digest))
    assert tagged is not None
    types = {each.get("artifactType") for each in json.loads(tagged.body)["manifests"]}
    assert set(MEDIA_TYPES.values()) < types


def test_whoever_verifies_is_not_disturbed(
    published: str, key: Path, cache: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "trust.toml"
    who = ("--key", f"b={key}.pub", "--source", SOURCE)
    ran = nix_seed("policy", "init", policy, *who, cache=cache)
    assert ran.code == 0, ran.err
    env = LOGIN | {"NIX_SEED_STATE": str(tmp_path / "state")}
    ran = nix_seed("verify", published, "--policy", policy, cache=cache, env=env)
    assert ran.code == 0, ran.out + ran.err
    assert "attestations 1" in ran.out


def test_skopeo_reads_the_list_and_the_document(
    published: str, running: Running, cache: Path
) -> None:
    need("skopeo")
    text = nix_seed("inspect", published, "--json", cache=cache, env=LOGIN).out
    tag = f"sha256-{json.loads(text)['digest'].removeprefix('sha256:')}"

    def raw(name: str) -> Any:
        command = ["skopeo", "inspect", "--raw", "--tls-verify=false", "--creds"]
        place = f"docker://{running.host}/demo/sbom{name}"
        done = subprocess.run(
            [*command, f"{USER}:{PASSWORD}", place], check=True, capture_output=True
        )
        return json.loads(done.stdout)

    [entry] = [
        each
        for each in raw(f":{tag}")["manifests"]
        if each["artifactType"] == "application/vnd.cyclonedx+json"
    ]
    [layer] = raw(f"@{entry['digest']}")["layers"]
    attached = sbom(published, "--attached", cache=cache, env=LOGIN)
    assert layer["digest"] == str(Digest.of(attached))
    assert layer["annotations"] == {"org.opencontainers.image.title": "sbom.cdx.json"}


@pytest.mark.interop
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("start", [docker_registry, referrers_registry])
def test_oras_discovers_and_pulls_it(
    start: Any, project: Path, key: Path, cache: Path, tmp_path: Path
) -> None:
    oras = installed("oras")
    password = {"password": False} if start is docker_registry else {}
    (tmp_path / "registry").mkdir()
    with start(tmp_path / "registry", **password) as registry:
        reference = f"{registry.host}/demo/oras:dev"
        ran = publish(project, reference, key, cache, login=False)
        assert ran.code == 0, ran.err
        repository = Registry(registry.host).repository("demo/oras")
        image = repository.head_manifest("dev")
        assert image is not None
        [entry] = repository.referrers(image.digest, MEDIA_TYPES["cyclonedx"])
        # Unfiltered: this registry's API lists everything under the type of its configuration.
        command = [oras, "discover", "--plain-http", "--format", "json", reference]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert str(entry.digest) in listed
        place = f"{registry.host}/demo/oras@{entry.digest}"
        command = [oras, "pull", "--plain-http", "-o", str(tmp_path), place]
        subprocess.run(command, check=True, capture_output=True)
        attached = sbom(reference, "--attached", cache=cache)
        assert (tmp_path / "sbom.cdx.json").read_bytes() == attached


def test_of_an_index_one_system_is_meant(published: str, running: Running, cache: Path) -> None:
    index = f"{running.host}/demo/sbom:all"
    ran = nix_seed("index", index, published, cache=cache, env=LOGIN)
    assert ran.code == 0, ran.err
    for more in ((), ("--attached",)):
        assert sbom(index, *more, cache=cache, env=LOGIN) == sbom(
            published, *more, cache=cache, env=LOGIN
        )
    ran = nix_seed("sbom", index, "--system", "aarch64-linux", cache=cache, env=LOGIN)
    assert ran.code == 2
    assert "has no images for aarch64-linux" in ran.err


def test_an_index_of_a_flake_says_where_it_is_from(
    published: str, running: Running, project: Path, cache: Path
) -> None:
    index = f"{running.host}/demo/sbom:from"
    ran = nix_seed("index", index, published, "--flake", project, cache=cache, env=LOGIN)
    assert ran.code == 0, ran.err
    keyring = Keyring(given=Credential("the test", USER, PASSWORD))
    fetched = Registry(running.host, keyring=keyring).repository("demo/sbom").get_manifest("from")
    assert fetched is not None
    said = json.loads(fetched.body)["annotations"]
    shown = ("git", "-C", project, "show", "-s", "--format=%H %cI")
    commit, time = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.split()
    assert said.pop("org.opencontainers.image.revision") == commit
    created = datetime.fromisoformat(said.pop("org.opencontainers.image.created"))
    assert created == datetime.fromisoformat(time)
    # No licences: some of the image's have no identifier.
    assert said == {
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.title": SOURCE.rpartition("/")[2],
    }


def test_a_store_that_holds_no_seed_is_refused(cache: Path, tmp_path: Path) -> None:
    seed_image(tmp_path / "image", "other")
    ran = nix_seed("sbom", f"oci:{tmp_path / 'image'}:other", cache=cache)
    assert ran.code == 2
    assert "is not a seed: its last layer holds no etc/nix-seed/seed.json" in ran.err


def test_publishing_may_attach_less(project: Path, key: Path, cache: Path, tmp_path: Path) -> None:
    reference = f"oci:{tmp_path / 'less'}:dev"
    ran = publish(project, reference, key, cache, "--sbom", "none")
    assert ran.code == 0, ran.err
    assert nix_seed("sbom", reference, "--attached", cache=cache, env=LOGIN).code == 2
    ran = publish(project, reference, key, cache, "--sbom", "spdx")
    assert ran.code == 0, ran.err
    valid_spdx(sbom(reference, "--attached", "--format", "spdx", cache=cache, env=LOGIN))
    assert nix_seed("sbom", reference, "--attached", cache=cache, env=LOGIN).code == 2
    ran = publish(project, reference, key, cache, "--sbom", "none", "--sbom", "spdx")
    assert ran.code == 2
    assert "--sbom none goes with no other format" in ran.err


def said(licence: str | None) -> str | None:
    """Return a licence of the project's as a bill of materials says it: remarks are none."""
    if licence is None or licence.startswith(("see ", "accepted by")):
        return None
    return {"mit OR apache-2.0": "MIT OR Apache-2.0"}.get(licence, licence)


def test_roots_and_licences_read_registries_too(published: str, project: Path, cache: Path) -> None:
    ran = nix_seed("licences", published, "--json", cache=cache, env=LOGIN)
    assert ran.code == 0, ran.err
    value = json.loads(ran.out)
    [item] = value["withheld"]
    assert item["licence"] == "vendor-eula"
    # The table is what the flake's own would be, but for remarks and the list's spelling.
    own = nix_seed("licences", project, "--json", cache=cache)
    assert value["paths"] == [
        each | {"licence": said(each["licence"])} for each in json.loads(own.out)["paths"]
    ]
    text = nix_seed("licences", published, cache=cache, env=LOGIN)
    assert text.out.splitlines()[1].startswith("withheld         vendor-tool-4.0")
    assert "as the attached bill of materials says" in text.err
    ran = nix_seed("roots", published, "--json", cache=cache, env=LOGIN)
    assert ran.code == 0, ran.err
    value = json.loads(ran.out)
    assert any("busybox" in each["path"] for each in value["executed"])
    assert value["rootsDigest"] is None


def test_a_checkout_called_like_a_registry_is_a_flake(
    project: Path, cache: Path, tmp_path: Path
) -> None:
    place = tmp_path / "my.flakes" / "project"
    place.parent.mkdir()
    subprocess.run(["git", "clone", "-q", project, place], check=True)
    (place / "own.txt").write_text("changed\n")
    commit(place, "Change own.txt")
    ran = nix_seed("sbom", "my.flakes/project", cache=cache, cwd=tmp_path)
    # Nix takes it for an entry of its registry; the command at least never asks a registry.
    assert "my.flakes/project" in ran.err
    assert "registry my.flakes" not in ran.err
