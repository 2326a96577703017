"""``build --push``, ``exists`` and ``lock``: from a flake straight into a real registry."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.digests import Digest
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.client import Repository
from nix_seed.registry.credentials import Credential, Keyring
from support import built
from support.distribution import commit, make_project, nix_env
from support.registries import PASSWORD, USER, Running, docker_registry
from support.repositories import Registry
from support.seeds import (
    Ran,
    build as build_on_disk,
    copied_store,
    edit,
    nix_seed,
    remove_tree,
    store_paths,
)

LOGIN = {"NIX_SEED_REGISTRY_USERNAME": USER, "NIX_SEED_REGISTRY_PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project("hello", tmp_path_factory.mktemp("project") / "hello", distribution)
    flake = project / "flake.nix"
    flake.write_text(re.sub(r'"(aarch64-linux|x86_64-darwin)"', "", flake.read_text()))
    commit(project, "Two systems")
    return project


@pytest.fixture(scope="module")
def first(running: Running, cache: Path, project: Path) -> dict[str, Any]:
    """The first push of the project, to ``demo/seed``."""
    return push(project, f"{running.host}/demo/seed:dev", cache)


def push(project: Path, reference: str, cache: Path, *arguments: str) -> dict[str, Any]:
    ran = nix_seed(
        "build", project, "--push", reference, "--json", *arguments, cache=cache, env=LOGIN
    )
    assert ran.code == 0, ran.err
    value: dict[str, Any] = json.loads(ran.out)
    return value


def ask(project: Path, reference: str, cache: Path) -> Ran:
    return nix_seed("exists", project, reference, "--json", cache=cache, env=LOGIN)


def repository(running: Running, path: str = "demo/seed") -> Repository:
    keyring = Keyring(given=Credential("the test", USER, PASSWORD))
    return Registry(running.host, keyring=keyring).repository(path)


def revision(project: Path) -> str:
    command = ["git", "-C", str(project), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_an_image_goes_to_the_registry_in_one_pass(
    first: dict[str, Any], running: Running, cache: Path, project: Path, tmp_path: Path
) -> None:
    assert first["built"] is True
    assert first["reference"] == f"{running.host}/demo/seed@{first['digest']}"
    assert first["sent"] > sum(layer["size"] for layer in first["layers"])
    assert not list(cache.glob("blobs/*")), "a blob was left on disk"
    on_disk = build_on_disk(project, "-o", tmp_path / "seed", cache=tmp_path / "cache")
    assert on_disk["digest"] == first["digest"]
    assert [layer["diffId"] for layer in on_disk["layers"]] == [
        layer["diffId"] for layer in first["layers"]
    ]


def test_it_is_tagged_by_input_key_by_commit_and_as_asked(
    first: dict[str, Any], running: Running, project: Path
) -> None:
    tags = {f"{first['inputKey']}-x86_64-linux", f"{revision(project)}-x86_64-linux", "dev"}
    assert set(first["tags"]) == tags
    there = repository(running)
    for tag in tags:
        found = there.get_manifest(tag)
        assert found is not None
        assert str(found.descriptor.digest) == first["digest"]


def test_what_is_there_is_not_built_again(
    first: dict[str, Any], running: Running, cache: Path, project: Path, tmp_path: Path
) -> None:
    again = push(project, f"{running.host}/demo/seed:again", tmp_path / "empty-cache")
    assert again["built"] is False
    assert again["sent"] == 0
    assert (again["digest"], again["inputKey"]) == (first["digest"], first["inputKey"])
    found = repository(running).get_manifest("again")
    assert found is not None
    assert str(found.descriptor.digest) == first["digest"]


def test_a_commit_of_source_finds_the_image_there(
    first: dict[str, Any], running: Running, cache: Path, project: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "hello"
    subprocess.run(["cp", "-a", project, changed], check=True)
    source = next(changed.glob("**/*.c"))
    source.write_text(source.read_text() + "\n/* changed */\n")
    commit(changed, "Change the source")
    ran = ask(changed, f"{running.host}/demo/seed", cache)
    assert (ran.code, json.loads(ran.out)["digest"]) == (0, first["digest"])


def test_a_new_dependency_sends_its_layers_alone(
    first: dict[str, Any], running: Running, cache: Path, project: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "hello"
    subprocess.run(["cp", "-a", project, changed], check=True)
    add_dependency(changed)
    assert ask(changed, f"{running.host}/demo/seed", cache).code == 1
    second = push(changed, f"{running.host}/demo/seed", cache)
    known = {layer["digest"] for layer in first["layers"]}
    new = [layer for layer in second["layers"] if layer["digest"] not in known]
    assert 0 < len(new) < 5
    assert all(layer["reused"] == (layer["digest"] in known) for layer in second["layers"])
    documents = second["sent"] - sum(layer["size"] for layer in new)
    assert 0 < documents < 200_000, "more was sent than new layers, configuration and manifest"


def add_dependency(project: Path) -> None:
    edit(project, "hello.nix", "doCheck = true;", "doCheck = true; buildInputs = [ pkgs.openssl ];")


def test_what_an_earlier_build_left_on_disk_is_sent_from_there(
    first: dict[str, Any], running: Running, project: Path, tmp_path: Path
) -> None:
    build_on_disk(project, "-o", tmp_path / "seed", cache=built.layers(tmp_path / "cache"))
    pushed = push(project, f"{running.host}/demo/other", tmp_path / "cache")
    assert pushed["digest"] == first["digest"]
    assert pushed["sent"] > sum(layer["size"] for layer in pushed["layers"])


def test_a_seed_is_proved_before_it_is_published(
    running: Running, project: Path, tmp_path: Path
) -> None:
    cache = built.layers(tmp_path / "cache")
    pushed = push(project, f"{running.host}/demo/proved", cache, "--prove")
    assert pushed["proof"]["complete"] is True


def test_a_changed_store_leaves_no_tag(
    first: dict[str, Any], running: Running, project: Path, tmp_path: Path
) -> None:
    root = copied_store(tmp_path / "root", store_paths(first))
    victim = max((path for path in root.glob("nix/store/*/bin/bash") if path.is_file()), key=str)
    victim.chmod(0o755)
    victim.write_bytes(victim.read_bytes() + b"x")
    try:
        ran = nix_seed(
            *("build", project, "--store", root, "--push", f"{running.host}/demo/broken"),
            cache=tmp_path / "cache",
            env=LOGIN,
        )
        assert ran.code == 1, ran.err
        assert victim.relative_to(root).parts[2] in ran.err
        assert repository(running, "demo/broken").list_tags() == ()
    finally:
        remove_tree(root)


def test_the_lock_pins_the_base_of_the_next_image(
    first: dict[str, Any], running: Running, cache: Path, project: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "hello"
    subprocess.run(["cp", "-a", project, changed], check=True)
    reference = f"{running.host}/demo/seed@{first['digest']}"
    ran = nix_seed("lock", reference, "-o", changed / "seed.lock", cache=cache, env=LOGIN)
    assert ran.code == 0, ran.err
    lock = json.loads((changed / "seed.lock").read_text())
    assert lock["image"] == f"{running.host}/demo/seed"
    assert lock["systems"]["x86_64-linux"] == {
        "digest": first["digest"],
        "narHash": first["narHash"],
    }
    add_dependency(changed)
    planned = nix_seed("plan", changed, "--json", cache=cache, env=LOGIN)
    assert planned.code == 0, planned.err
    pull = json.loads(planned.out)["pull"]
    assert 0 < pull["layers"] < 5
    free = nix_seed("plan", changed, "--json", "--no-lock", cache=cache, env=LOGIN)
    assert "pull" not in json.loads(free.out)


def test_a_lock_that_was_tampered_with_is_refused(
    first: dict[str, Any], running: Running, cache: Path, project: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "hello"
    subprocess.run(["cp", "-a", project, changed], check=True)
    other = "sha256-" + "A" * 43 + "="
    entry = {"digest": first["digest"], "narHash": other}
    lock = {"version": 1, "image": f"{running.host}/demo/seed", "systems": {"x86_64-linux": entry}}
    (changed / "seed.lock").write_text(json.dumps(lock))
    commit(changed, "Lock")
    ran = nix_seed("build", changed, "-o", tmp_path / "out", cache=cache, env=LOGIN)
    assert ran.code == 1
    assert f"seed.lock states narHash {other}" in ran.err
    assert first["narHash"] in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--push", "oci:somewhere"], "is on this machine"),
        (["--push", "localhost:1/x", "-o", "y"], "exclude each other"),
        (["--push", f"localhost:1/x@{Digest.of(b'')}"], "cannot be pushed to a digest"),
        (["--push", "UPPER/x"], "names no registry"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    arguments: list[str], words: str, project: Path, cache: Path
) -> None:
    ran = nix_seed("build", project, *arguments, cache=cache)
    assert ran.code == 2, ran.err
    assert words in ran.err


def test_a_registry_out_of_reach_is_not_an_answer(project: Path, cache: Path) -> None:
    ran = nix_seed("exists", project, "127.0.0.1:1/demo/seed", cache=cache)
    assert ran.code == 3, ran.err
    assert "127.0.0.1:1" in ran.err


def test_wrong_credentials_are_named(running: Running, project: Path, cache: Path) -> None:
    env = LOGIN | {"NIX_SEED_REGISTRY_PASSWORD": "not-the-one"}
    ran = nix_seed("exists", project, f"{running.host}/demo/seed", cache=cache, env=env)
    assert ran.code in (2, 3), ran.err
    assert "not-the-one" not in ran.err


def test_reference_type_is_what_the_cli_prints(first: dict[str, Any]) -> None:
    parsed = Reference.parse(first["reference"])
    assert str(parsed.digest) == first["digest"]


def test_the_index_of_a_flake_wants_all_its_systems(
    running: Running, cache: Path, project: Path, first: dict[str, Any]
) -> None:
    target = f"{running.host}/demo/seed:release"
    arguments = ("index", target, "--flake", project, "--json")
    ran = nix_seed(*arguments, cache=cache, env=LOGIN)
    assert ran.code == 2, ran.err
    assert repository(running).get_manifest("release") is None
    other = "aarch64-darwin"
    pushed = nix_seed(
        *("build", project, "--system", other, "--push", f"{running.host}/demo/seed"),
        cache=cache,
        env=LOGIN | {"NIX_CONFIG": nix_env(extra_platforms=other)["NIX_CONFIG"]},
    )
    assert pushed.code == 0, pushed.err
    ran = nix_seed(*arguments, cache=cache, env=LOGIN)
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert sorted(told["systems"]) == [other, "x86_64-linux"]
    assert told["systems"]["x86_64-linux"] == first["digest"]
    found = repository(running).get_manifest("release")
    assert found is not None
    platforms = [child["platform"] for child in json.loads(found.body)["manifests"]]
    assert {(one["os"], one["architecture"]) for one in platforms} == {
        ("linux", "amd64"),
        ("darwin", "arm64"),
    }
