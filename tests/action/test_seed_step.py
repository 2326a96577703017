"""The steps of ``action.yml``, run as GitHub runs them: on a real flake, into a real registry."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nix_seed.formats.intoto.statement import BUILD_TYPE
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.registry.open import Stores, fetch
from nix_seed.use.mount.seed import open_mountable
from support import built
from support.distribution import commit, nix_env, upgraded, use_distribution
from support.github_store import TOKEN, github_store
from support.mounts import need_fuse
from support.private_sigstore import PrivateSigstore
from support.registries import PASSWORD, USER, docker_registry
from support.runner import REPOSITORY, Runner, command, git
from support.seeds import edit, write_project
from support.sigstore_server import serving, token
from support.steps import Result
from support.tokens import READER, READERS_PASSWORD, token_server
from support.web import lying

FORK: dict[str, Any] = {"pull_request": {"head": {"repo": {"full_name": "stranger/Project"}}}}


@pytest.fixture(scope="module")
def runner(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The example, in a registry that anyone may read; and, here, write."""
    root = tmp_path_factory.mktemp("seed")
    project = built.small_project(root / "project", distribution)
    git(project, "remote", "add", "origin", f"https://github.com/{REPOSITORY}")
    with docker_registry(root / "registry", password=False) as registry:
        yield Runner(root, project, registry)


@pytest.fixture(scope="module")
def key(runner: Runner) -> str:
    made = runner.root / "builder.key"
    subprocess.run([command(runner.root), "key", "generate", made], check=True)
    return made.read_text()


def signed(key: str, **more: str) -> dict[str, str]:
    """Inputs of a job that signs; only ``first`` proves its seed as well, which takes seconds."""
    login = {"registry_token": "t0ken-of-the-job", "signing": "key", "key": key}
    return {**login, "prove": "false", **more}


@pytest.fixture(scope="module")
def first(runner: Runner, key: str) -> Result:
    return runner.run(".", signed(key, tags="dev", prove="true"))


def check(result: Result) -> Result:
    assert result.code == 0, result.log
    return result


def test_a_push_builds_pushes_and_attests(runner: Runner, first: Result) -> None:
    out = check(first).outputs
    assert (out["built"], out["published"]) == ("true", "true")
    assert out["reference"] == f"{runner.seeds}@{out['digest']}"
    assert out["nar_hash"].startswith("sha256-")
    tags = runner.tags()
    for tag in (
        "dev",
        f"{out['input_key']}-x86_64-linux",
        f"{runner.commit}-x86_64-linux",
    ):
        assert tags[tag] == out["digest"]
    fallback = out["digest"].replace(":", "-")
    assert fallback in tags, "the attestation is listed beside the image"
    assert first.used == [], "there is a Nix: none is installed"


def counting_nix(directory: Path) -> tuple[dict[str, str], Path]:
    """Return an environment whose ``nix`` writes down what it is asked, and where it does."""
    directory.mkdir()
    asked, real = directory / "asked", shutil.which("nix")
    program = directory / "nix"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {asked}\nexec {real} "$@"\n')
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}, asked


def test_what_a_build_reads_is_listed_beside_the_seed(
    runner: Runner, key: str, tmp_path: Path
) -> None:
    need_fuse()
    inputs = {"registry_token": "t", "signing": "none", "image": "owner/listed", "prove": "false"}
    env, asked = counting_nix(tmp_path / "bin")
    done = check(runner.run(".", inputs | {"record": "nix build"}, env=env))
    # The seed was just evaluated, for which the flake and its altered twin are.
    assert [line.count(").twin ") for line in asked.read_text().splitlines()].count(1) == 1
    tag = done.outputs["digest"].replace(":", "-") + ".prefetch"
    assert runner.tags("owner/listed")[tag]
    assert not (runner.project / "result").exists()
    # Whoever uses the seed begins with Nix: what our own script takes comes after that.
    reference = parse_reference(f"{runner.registry.host}/owner/listed@{done.outputs['digest']}")
    source = Stores().open(reference)
    seed = open_mountable("listed", fetch(source, reference), source)
    read = [
        {layer.path(node) for node in range(len(layer.kinds)) if start <= layer.offsets[node] < end}
        for layer, number in ((seed.layers[at].contents, number) for at, number in seed.first)
        for start, end in [layer.starts[number : number + 2]]
    ]
    nix, ours = (
        next(at for at, paths in enumerate(read) if any(path.endswith(name) for path in paths))
        for name in ("/bin/nix", "/bin/date")
    )
    assert nix < ours
    # What evaluating writes is sent as well, but nothing that is the project's own.
    sent = {name[33:] for name in seed.written}
    assert any(name.endswith(".drv") for name in sent)
    assert not {name for name in sent if "greeting" in name}
    # A list is for a new seed. One that cannot be made is no failure of the seed's.
    inputs["image"] = "owner/unlisted"
    failed = check(runner.run(".", inputs | {"record": "false"}))
    [notice] = failed.commands("notice")
    assert "What a build reads is not listed" in notice
    assert not [tag for tag in runner.tags("owner/unlisted") if tag.endswith(".prefetch")]


def test_names_of_the_index_are_not_one_systems(runner: Runner, key: str) -> None:
    """``latest``, and a commit, name the index over all systems, once it is promoted."""
    wanted = f"dev latest {runner.commit}"
    done = check(runner.run(".", signed(key, tags=wanted, image="owner/names")))
    tags = runner.tags("owner/names")
    assert tags["dev"] == done.outputs["digest"]
    assert not {"latest", runner.commit} & set(tags)
    [notice] = done.commands("notice")
    assert f"latest, {runner.commit}: of the index over all systems" in notice
    assert "the action 0compute/nix-seed/promote gives it its tags" in notice


def test_what_cannot_be_attested_is_not_found(runner: Runner) -> None:
    """Whoever signs is out of reach: then nothing names the image, and nothing promotes it."""
    identity = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1/token?a=b",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "bearer",
    }
    inputs = {"registry_token": "t", "image": "owner/unsigned"}
    failed = runner.run(".", inputs | {"tags": "dev"}, env=identity)
    assert failed.code == 3, failed.log
    names = [tag for tag in runner.tags("owner/unsigned") if not tag.startswith("sha256-")]
    assert names == []
    promote = runner.run("promote", inputs | {"systems": "x86_64-linux"})
    assert promote.code == 1
    assert "has no seed for x86_64-linux: nothing is promoted" in promote.commands("error")[0]


def test_its_page_tells_what_was_done(first: Result) -> None:
    for part in (
        "Built and published",
        "Proved: all 2 outputs",
        "### Names",
        "### Attestation",
        "signed by",
        "### The same on your machine",
        "nix-seed build . -o seed",
    ):
        assert part in first.summary


def test_its_log_folds_and_keeps_secrets(first: Result, key: str) -> None:
    groups = first.commands("group")
    assert "::group::Evaluate the flake" in groups
    assert "::group::Attest the image" in groups
    assert len(groups) == len(first.commands("endgroup"))
    assert "t0ken-of-the-job" not in first.log + first.summary
    assert key.splitlines()[1] not in first.log + first.summary


def test_again_nothing_is_built_or_sent(runner: Runner, first: Result, key: str) -> None:
    before = runner.writes()
    again = check(runner.run(".", signed(key)))
    assert again.outputs["built"] == "false"
    assert again.outputs["digest"] == first.outputs["digest"]
    assert again.outputs["nar_hash"] == first.outputs["nar_hash"]
    assert "nothing was built" in again.summary
    assert not [line for line in runner.writes()[len(before) :] if "/blobs/" in line]


def test_another_builder_makes_it_himself(runner: Runner, first: Result, key: str) -> None:
    """Whose word is not beside the image yet does not take it from another."""
    again = check(runner.run(".", signed(key, builder="somebody-else")))
    assert (again.outputs["built"], again.outputs["digest"]) == ("true", first.outputs["digest"])


def test_a_commit_of_source_only_finds_the_seed(runner: Runner, first: Result, key: str) -> None:
    edit(runner.project, "greeting", "Hello, ", "Hello - ")
    found = check(runner.run(".", signed(key)))
    assert (found.outputs["built"], found.outputs["digest"]) == ("false", first.outputs["digest"])
    assert runner.tags()[f"{runner.commit}-x86_64-linux"] == first.outputs["digest"]


@pytest.mark.parametrize("event", ["pull_request", "pull_request_target"])
def test_a_fork_finds_the_public_seed(runner: Runner, first: Result, event: str) -> None:
    before = runner.writes()
    found = check(runner.run(".", {}, event=event, payload=FORK))
    assert (found.outputs["built"], found.outputs["published"]) == ("false", "true")
    assert found.outputs["digest"] == first.outputs["digest"]
    [notice] = found.commands("notice")
    assert "a pull request from stranger/Project has no secrets, and never publishes" in notice
    assert found.commands("error") == found.commands("warning") == []
    assert runner.writes() == before


def test_a_changed_lock_is_built_and_not_published(
    runner: Runner, key: str, tmp_path: Path
) -> None:
    """Even where the job has every secret: what is not merged is nobody's word yet."""
    check(runner.run(".", signed(key)))
    promoted = signed(key, systems="x86_64-linux")
    del promoted["prove"]
    check(runner.run("promote", promoted))
    project = tmp_path / "fork"
    subprocess.run(["git", "clone", "-q", str(runner.project), str(project)], check=True)
    use_distribution(project, upgraded("make"))
    fork = Runner(tmp_path / "run", project, runner.registry)
    before, tags = runner.writes(), runner.tags()
    inputs = signed(key, tags="evil latest")
    built = check(fork.run(".", inputs, event="pull_request_target", payload=FORK))
    assert (built.outputs["built"], built.outputs["published"]) == ("true", "false")
    assert built.outputs["reference"].startswith("oci:")
    assert (runner.writes(), runner.tags()) == (before, tags)
    assert "Built, not published" in built.summary
    # Against the seed there is, the page tells who changed what.
    assert "to pull" in built.summary
    assert "make" in built.summary[built.summary.index("What changed, and what that pulls") :]


def test_another_checkout_than_the_event_is_about(runner: Runner, key: str) -> None:
    """A workflow that checks out a pull request's head publishes it under no other's name."""
    before = runner.writes()
    found = check(runner.run(".", signed(key, layers="50"), sha="c" * 40))
    assert found.outputs["published"] == "false"
    [warning] = found.commands("warning")
    assert f"the event is about {'c' * 40}" in warning
    assert runner.writes() == before


def test_without_a_token_it_only_builds(runner: Runner) -> None:
    before = runner.writes()
    built = check(runner.run(".", {"layers": "43"}))
    assert (built.outputs["built"], built.outputs["published"]) == ("true", "false")
    assert built.outputs["reference"].startswith("oci:")
    assert "there is no registry_token: build only" in built.commands("notice")[0]
    assert runner.writes() == before


def test_a_token_that_may_not_write_names_the_permission(runner: Runner, key: str) -> None:
    with docker_registry(runner.root / "closed") as closed:
        other = Runner(runner.root / "closed-run", runner.project, closed)
        failed = other.run(".", signed(key))
        assert failed.code == 3
        [error] = failed.commands("error")
        assert "permissions: packages: write" in error
        assert "Manage Actions access" in error
        good = check(
            other.run(".", signed(key) | {"registry_user": USER, "registry_token": PASSWORD})
        )
        assert good.outputs["published"] == "true"


def test_the_first_of_all_in_a_registry_that_hides_what_is_not_there(
    runner: Runner, key: str, tmp_path: Path
) -> None:
    """As GHCR may: to pull from a package that nobody has made yet is denied, to push is not."""
    with (
        token_server(tmp_path / "tokens") as tokens,
        docker_registry(tmp_path / "registry", tokens=tokens.trust) as registry,
    ):
        tokens.storage = tmp_path / "registry/data/docker/registry/v2/repositories"
        other = Runner(tmp_path / "run", runner.project, registry)
        login = {"registry_user": USER, "registry_token": PASSWORD}
        made = check(other.run(".", signed(key) | login))
        assert made.outputs["published"] == "true"
        reader = {"registry_user": READER, "registry_token": READERS_PASSWORD}
        failed = other.run(".", signed(key, image="owner/new") | reader)
        assert failed.code == 3
        assert "permissions: packages: write" in failed.commands("error")[0]
        assert "Build what the image is to hold" not in failed.log, "told before any work"


def test_a_fork_that_may_not_read_the_lock(runner: Runner, key: str, tmp_path: Path) -> None:
    """A closed registry, a ``seed.lock``, no token: the seed is built all the same."""
    project = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", str(runner.project), str(project)], check=True)
    git(project, "remote", "set-url", "origin", f"https://github.com/{REPOSITORY}")
    with docker_registry(tmp_path / "closed") as closed:
        other = Runner(tmp_path / "run", project, closed)
        login = {"registry_user": USER, "registry_token": PASSWORD}
        check(other.run(".", signed(key, tags="dev") | login))
        lock = [str(command(runner.root)), "lock", f"{other.seeds}:dev", "-o", "seed.lock"]
        registry = {"NIX_SEED_REGISTRY": closed.host, "NIX_SEED_STATE": str(tmp_path / "state")}
        registry |= {"NIX_SEED_REGISTRY_USERNAME": USER, "NIX_SEED_REGISTRY_PASSWORD": PASSWORD}
        subprocess.run(lock, cwd=project, env=os.environ | registry, check=True)
        commit(project, "Lock the seed")
        built = check(other.run(".", {}, event="pull_request", payload=FORK))
        assert (built.outputs["built"], built.outputs["published"]) == ("true", "false")
        assert built.commands("error") == built.commands("warning") == []
        assert any(
            "seed.lock names a seed that could not be read" in n for n in built.commands("notice")
        )
        assert "packages: write" not in built.log
        # Who publishes must make what everyone makes.
        failed = other.run(".", signed(key, layers="42"))
        assert failed.code == 3


def _job_token(method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """GitHub's answer to a job that asks who it is."""
    assert (method, "audience=sigstore" in path) == ("GET", True)
    return 200, {"Content-Type": "application/json"}, json.dumps({"value": token()}).encode()


def test_what_is_signed_keyless_is_copied_to_githubs_store(runner: Runner, tmp_path: Path) -> None:
    """The whole step, by a private Sigstore; a store that lets nobody in stops nothing."""
    with (
        serving(PrivateSigstore(tmp_path / "sigstore")) as sigstore,
        github_store() as store,
        lying(_job_token) as issuer,
    ):
        (tmp_path / "config.json").write_bytes(sigstore.trust_config())
        env = {
            "GITHUB_API_URL": store.url,
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer}/token?api-version=2",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "asks-for-an-identity",
        }
        inputs = {
            "registry_token": "t",
            "sigstore": str(tmp_path / "config.json"),
            "attestations_token": TOKEN,
            "image": "owner/keyless",
        }
        done = check(runner.run(".", inputs, env=env))
        assert f"copied     to GitHub's attestations of {REPOSITORY}" in done.log
        [held] = store.held[f"{REPOSITORY}/{done.outputs['digest']}"]
        statement = json.loads(base64.b64decode(held["bundle"]["dsseEnvelope"]["payload"]))
        assert statement["predicateType"] == BUILD_TYPE
        again = check(runner.run(".", inputs, env=env))
        assert "copied" not in again.log, "nothing is signed again"
        refused = inputs | {"image": "owner/refused", "attestations_token": "none-of-ours"}
        third = check(runner.run(".", refused, env=env))
        assert third.outputs["published"] == "true"
        [notice] = third.commands("notice")
        assert "Not in GitHub's own store of attestations" in notice
        assert "attestations: write" in notice
        for result in (done, again, third):
            assert TOKEN not in result.log
            assert "asks-for-an-identity" not in result.log


def test_a_job_without_identity_names_the_permission(runner: Runner) -> None:
    failed = runner.run(".", {"registry_token": "x"})
    assert failed.code == 2
    [error] = failed.commands("error")
    assert "ACTIONS_ID_TOKEN_REQUEST_URL is not set" in error
    assert "permissions: id-token: write" in error
    assert "Seed failed" in failed.summary


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"layers": "many"}, "layers is 'many', which is no number"),
        ({"seed_attr": "github:a/b#seed"}, "names a flake that is not in the checkout"),
        ({"seed_attr": ".#absent"}, "has no attribute absent"),
        ({"tags": "a:b", "registry_token": "x", "signing": "none"}, "a:b"),
        ({"signing": "maybe", "registry_token": "x"}, "signing is 'maybe'"),
        ({"signing": "key", "registry_token": "x"}, "there is no key"),
        ({"image": "a/b:c"}, "names a tag or digest"),
        ({"flake": "absent"}, "absent"),
    ],
)
def test_wrong_inputs_are_named(runner: Runner, inputs: dict[str, str], words: str) -> None:
    failed = runner.run(".", inputs)
    assert failed.code in (2, 4), failed.log
    [error] = failed.commands("error")
    assert words in error.replace("%25", "%")
    assert failed.outputs["digest"] == ""


_WRONG = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def test_a_wrong_hash_is_shown_where_it_stands(
    runner: Runner, distribution: Path, tmp_path: Path
) -> None:
    download = f"""
      packages.x86_64-linux.default = pkgs.runCommand "it" {{
        input = pkgs.runCommand "download" {{
          outputHash = "{_WRONG}";
          outputHashMode = "flat";
        }} ''
          echo ::error::owned
          echo "::set-output name=digest::sha256:evil"
          echo '##[error]owned as well'
          echo content > $out
        '';
      }} "cp $input $out";
"""
    project = write_project(tmp_path / "wrong", distribution, download)
    failed = Runner(tmp_path / "run", project, runner.registry).run(".", {})
    assert failed.code == 4, failed.log
    mismatch, error = failed.commands("error")
    assert "title=Hash mismatch,file=flake.nix,line=" in mismatch
    number = int(mismatch.partition("line=")[2].partition(":")[0])
    assert _WRONG in (project / "flake.nix").read_text().splitlines()[number - 1]
    replacement = (
        subprocess.run(
            ["nix", "hash", "file", "--sri", "/dev/stdin"],
            input=b"content\n",
            env=nix_env(),
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .strip()
    )
    assert f"replace {_WRONG} with {replacement}" in mismatch
    assert "Nix failed" in error
    # What the build printed was no command, in the log and in the annotations.
    assert "owned" in failed.log
    assert not [line for line in failed.commands("error") if line.startswith("::error::owned")]
    assert failed.commands("set-output") == []
    assert failed.outputs["digest"] == ""
    assert replacement in failed.summary


def test_nothing_that_is_started_sees_the_secrets(runner: Runner, key: str, tmp_path: Path) -> None:
    """A download by hash may read its builder's environment: it must find nothing there."""
    seen = tmp_path / "seen"
    fake = tmp_path / "bin"
    fake.mkdir()
    real = subprocess.check_output(["which", "nix"], text=True).strip()
    (fake / "nix").write_text(f'#!/bin/sh\nenv >> "{seen}"\nexec {real} "$@"\n')
    (fake / "nix").chmod(0o755)
    env = {
        "PATH": f"{fake}{os.pathsep}{os.environ['PATH']}",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "bearer-of-identity",
    }
    check(runner.run(".", signed(key), env=env))
    found = seen.read_text()
    assert "GITHUB_ACTIONS=true" in found
    for secret in ("t0ken-of-the-job", "PRIVATE KEY", "bearer-of-identity"):
        assert secret not in found


def test_json_of_the_manifest_says_nothing_of_the_job(runner: Runner, first: Result) -> None:
    """The image is a function of the recipe: no event, no run, no commit is in it."""
    raw = subprocess.run(
        [
            "skopeo",
            "inspect",
            "--raw",
            "--tls-verify=false",
            f"docker://{first.outputs['reference']}",
        ],
        capture_output=True,
        check=True,
    ).stdout
    assert runner.commit not in json.dumps(json.loads(raw))


def test_a_pull_request_learns_that_publishing_would_be_refused(
    runner: Runner, distribution: Path, tmp_path: Path
) -> None:
    """Else it is green, and the default branch red once it is merged."""
    tools = "".join(
        f'tool{each} = pkgs.runCommand "tool-{each}" {{ }} "mkdir $out";\n' for each in range(12)
    )
    flake = f"""
      packages.x86_64-linux.default = pkgs.runCommand "it" {{ {tools} }} "mkdir $out";
"""
    project = write_project(tmp_path / "unknown", distribution, flake)
    machine = Runner(tmp_path / "run", project, runner.registry)
    # Where there is no such registry nothing is asked of one: nothing was to be published.
    inputs = {"registry": "registry.invalid", "prove": "false"}
    done = check(machine.run(".", inputs, event="pull_request", payload=FORK))
    [notice] = [each for each in done.commands("notice") if "would be refused" in each]
    # Ours are 12; the distribution's own packages, some of which say nothing either, are more.
    assert re.search(r"the licences of 1\d store paths are not known", notice)
    assert "not sent to registry.invalid: " in notice
    assert re.search(r"; and \d more \(give them a meta\.license; ", notice)
    here = check(machine.run(".", {"prove": "false"}, event="pull_request", payload=FORK))
    assert not [each for each in here.commands("notice") if "would be refused" in each]
