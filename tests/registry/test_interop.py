"""Registries with the referrers API, and other people's tools on what we pushed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.formats.oci.manifest import Descriptor, Index, Manifest, MediaType, fallback_tag
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.image.index import build_index
from nix_seed.image.inspect import inspect
from nix_seed.image.push import push
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.open import Stores
from nix_seed.registry.transfer import pull
from support.faults import fault_proxy
from support.goprograms import installed
from support.registries import PASSWORD, USER, docker_registry, referrers_registry
from support.repositories import Registry
from support.seed_images import layer, seed_image

pytestmark = [pytest.mark.interop, pytest.mark.timeout(1200)]

US = Keyring(given=Credential("the test", USER, PASSWORD))
KINDS = ["application/vnd.test.a", "application/vnd.test.b"]


@pytest.fixture(
    scope="module", params=["docker-registry", "distribution 3", "with the referrers API"]
)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("registry")
    if request.param == "with the referrers API":
        start = referrers_registry(root)
    else:
        later = request.param == "distribution 3"
        start = docker_registry(root, program=installed("registry") if later else None)
    with start as running:
        yield running.host


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    """An environment in which crane and oras find our password where `docker login` keeps it."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"HOST": {"auth": auth}}}))
    return os.environ | {"DOCKER_CONFIG": str(tmp_path)}


def log_in(config: dict[str, str], host: str) -> None:
    path = Path(config["DOCKER_CONFIG"], "config.json")
    path.write_text(path.read_text().replace("HOST", host))


def run(environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pushed(tmp_path: Path, host: str, path: str) -> tuple[Repository, Descriptor]:
    root = seed_image(tmp_path / "a", "demo")
    push(Stores(US), LayoutReference(str(tmp_path / "a")), Reference(host, path, "v1"))
    return Registry(host, keyring=US).repository(path), root


def attach(repository: Repository, subject: Descriptor, kind: str) -> Descriptor:
    empty = Descriptor(MediaType.EMPTY, Digest.of(b"{}"), 2)
    payload = Descriptor("text/plain", Digest.of(kind.encode()), len(kind))
    repository.push_blob(empty, lambda: [b"{}"])
    repository.push_blob(payload, lambda: [kind.encode()])
    return repository.attach(Manifest(empty, (payload,), {"k": kind}, kind, subject).dump())


def test_referrers_are_found_by_api_and_by_tag(tmp_path: Path, host: str) -> None:
    repository, root = pushed(tmp_path, host, "interop/referrers")
    entries = [attach(repository, root, kind) for kind in KINDS]
    expected = sorted(entry.digest for entry in entries)
    assert [entry.digest for entry in repository.referrers(root.digest)] == expected
    assert [entry.digest for entry in repository.referrers(root.digest, KINDS[0])] == [
        entries[0].digest
    ]


def test_the_api_answers_where_it_exists(tmp_path: Path) -> None:
    with referrers_registry(tmp_path) as running:
        repository, root = pushed(tmp_path, running.host, "interop/api")
        entry = attach(repository, root, KINDS[0])
        # Emptied, the fallback tag says nothing: what is found then comes from the API.
        repository.put_manifest(Index(()).dump(), MediaType.INDEX, fallback_tag(root.digest))
        assert [item.digest for item in repository.referrers(root.digest)] == [entry.digest]
        with fault_proxy(running.host) as proxy:
            seen = Registry(proxy.host).repository("interop/api").referrers(root.digest, KINDS[0])
            assert [item.digest for item in seen] == [entry.digest]
            assert any(f"/referrers/sha256:{root.digest.hex}" in path.replace("%3A", ":")
                       for path in proxy.paths("GET"))  # fmt: skip


def test_oras_discovers_what_we_attach(tmp_path: Path, host: str, config: dict[str, str]) -> None:
    oras = installed("oras")
    log_in(config, host)
    repository, root = pushed(tmp_path, host, "interop/oras")
    entry = attach(repository, root, KINDS[0])
    found = run(config, oras, "discover", "--plain-http", "--format", "json", f"{repository}:v1")
    assert str(entry.digest) in found


def test_we_find_what_oras_attaches(tmp_path: Path, host: str, config: dict[str, str]) -> None:
    oras = installed("oras")
    log_in(config, host)
    repository, root = pushed(tmp_path, host, "interop/oras-attach")
    (tmp_path / "note.txt").write_text("a note")
    command = ["attach", "--plain-http", "--disable-path-validation", "--artifact-type", KINDS[1]]
    run(config, oras, *command, f"{repository}:v1", str(tmp_path / "note.txt"))
    found = repository.referrers(root.digest, KINDS[1])
    assert len(found) == 1
    fetched = repository.get_manifest(found[0].digest)
    assert fetched is not None
    assert Manifest.parse(fetched.body, "oras'").artifact_type == KINDS[1]


@pytest.mark.parametrize("tool", ["crane", "oras", "regctl"])
def test_others_copy_it_unchanged(
    tmp_path: Path, host: str, config: dict[str, str], tool: str
) -> None:
    program = installed(tool)
    log_in(config, host)
    stores = Stores(US)
    images = []
    for system in ("x86_64-linux", "aarch64-linux"):
        seed_image(tmp_path / "a", system, system=system, layers=[("base", *layer(system))])
        images.append(LayoutReference(str(tmp_path / "a"), system))
    source = Reference(host, f"interop/from-{tool}", "v1")
    made = build_index(stores, source, images)
    target = Reference(host, f"interop/to-{tool}", "v1")
    arguments = {
        "crane": ["copy", "--insecure", str(source), str(target)],
        "oras": ["copy", "--from-plain-http", "--to-plain-http", str(source), str(target)],
        "regctl": ["--host", f"reg={host},tls=disabled", "image", "copy", str(source), str(target)],
    }
    run(config, program, *arguments[tool])
    assert inspect(stores, target).digest == made.descriptor.digest
    pull(stores, target, LayoutReference(str(tmp_path / "back"), "v1"))
