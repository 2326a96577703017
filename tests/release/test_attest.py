"""attest states what is: the image, the store and Git decide, and disagree at one's peril."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from nix_seed.core import canonical_json
from nix_seed.core.errors import InputError
from nix_seed.flake.checkout import read_checkout
from nix_seed.formats.oci.manifest import Manifest, MediaType
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.registry.layout import Layout
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.trust.sign import KeySigner, write_key_pair
from support import built
from support.attestations import put
from support.distribution import make_project
from support.families import FAMILIES
from support.quirks import PASSWORD as QUIRKS_PASSWORD, USER as QUIRKS_USER, quirky_registry
from support.registries import PASSWORD, USER, Running, docker_registry
from support.seed_images import layer
from support.seeds import Ran, build, edit, nix_seed

SOURCE = "https://forge.example/owner/project"


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), "-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://github.com/owner/repo", "https://github.com/owner/repo"),
        ("https://github.com/owner/repo.git", "https://github.com/owner/repo"),
        ("https://user:token@github.com/owner/repo.git", "https://github.com/owner/repo"),
        ("git@github.com:owner/repo.git", "https://github.com/owner/repo"),
        ("ssh://git@forge.example:2222/owner/repo.git", "https://forge.example/owner/repo"),
        ("https://forge.example:8443/owner/repo/", "https://forge.example:8443/owner/repo"),
    ],
)
def test_one_source_has_one_name_and_no_credentials(tmp_path: Path, url: str, plain: str) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "Start")
    git(tmp_path, "remote", "add", "origin", url)
    assert read_checkout(tmp_path).origin == plain


def test_a_checkout_without_a_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no Git checkout with a commit"):
        read_checkout(tmp_path)


class Bench:
    """A project, its image in a layout, and a key."""

    def __init__(self, root: Path, distribution: Path) -> None:
        self.root = root
        self.project = make_project("two-packages", root / "project", distribution)
        self.image = f"oci:{root / 'image'}:seed"
        cache = built.layers(root / "cache")
        build(self.project, "-o", root / "image", "--tag", "seed", cache=cache)
        write_key_pair(KeySigner.generate(), root / "me.key")

    def attest(self, *arguments: str | Path, source: bool = True, image: str | None = None) -> Ran:
        where = ("--source", SOURCE) if source else ()
        return nix_seed(
            *("attest", image or self.image, "--flake", self.project, "--builder", "me"),
            *("--key", self.root / "me.key", "--json", *where, *arguments),
            cache=self.root / "cache",
            cwd=self.root,
        )


@pytest.fixture(scope="module")
def bench(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("attest"), distribution)


def test_what_is_stated_is_what_is(bench: Bench) -> None:
    ran = bench.attest()
    assert ran.code == 0, ran.err
    value = json.loads(ran.out)
    said = value["predicate"]
    assert said["source"]["commit"] == {"sha1": git(bench.project, "rev-parse", "HEAD")}
    assert said["source"] | {"commit": None} == {
        "uri": SOURCE,
        "commit": None,
        "lockHash": "sha256:" + _sha256(bench.project / "flake.lock"),
        "dirty": False,
    }
    assert said["imageDigest"] == value["image"]
    assert said["paths"]["built"] > 50
    assert said["paths"]["substituted"] == 0
    assert said["nix"]["substituters"] == []
    roots = nix_seed("roots", bench.project, "--json", cache=bench.root / "cache")
    assert said["rootsDigest"] == json.loads(roots.out)["rootsDigest"]


def test_a_clone_with_its_history_cut_off(bench: Bench, tmp_path: Path) -> None:
    """As CI services check out; Nix refuses such a repository unless it is told."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{bench.project}", str(clone))
    git(clone, "remote", "set-url", "origin", SOURCE)
    assert read_checkout(clone).shallow
    ran = bench.attest("--flake", clone)
    assert ran.code == 0, ran.err
    commit = git(bench.project, "rev-parse", "HEAD")
    assert json.loads(ran.out)["predicate"]["source"]["commit"] == {"sha1": commit}


def test_a_flake_in_a_subdirectory(bench: Bench, tmp_path: Path) -> None:
    flake = tmp_path / "repository" / "a part"
    shutil.copytree(bench.project, flake, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    git(tmp_path / "repository", "init", "-q")
    git(tmp_path / "repository", "add", "-A")
    git(tmp_path / "repository", "commit", "-qm", "Start")
    ran = bench.attest("--flake", flake)
    assert ran.code == 0, ran.err
    source = json.loads(ran.out)["predicate"]["source"]
    assert source["commit"] == {"sha1": git(tmp_path / "repository", "rev-parse", "HEAD")}
    assert source["lockHash"] == "sha256:" + _sha256(flake / "flake.lock")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_source_nobody_named_is_refused(bench: Bench) -> None:
    ran = bench.attest(source=False)
    assert ran.code == 2
    assert "has no remote called origin that says where it is published" in ran.err


def test_a_dirty_tree_is_refused_or_said_to_be(bench: Bench) -> None:
    path = bench.project / "greet" / "main.c"
    before = path.read_text()
    path.write_text(before + "\n")
    try:
        ran = bench.attest()
        assert ran.code == 2
        assert "has changes that no commit holds" in ran.err
        allowed = bench.attest("--allow-dirty")
        assert json.loads(allowed.out)["predicate"]["source"]["dirty"] is True
    finally:
        path.write_text(before)


def test_an_image_of_another_commit_is_refused(bench: Bench) -> None:
    """A commit that asks for one dependency more is not what this image was built from."""
    edit(bench.project, "nix/greet.nix", "[ libgreet ]", "[ libgreet pkgs.openssl ]")
    try:
        ran = bench.attest()
        assert ran.code == 1
        commit = git(bench.project, "rev-parse", "HEAD")
        assert f"the image is not what {commit} asks for" in ran.err
        assert "store paths differ, first /nix/store/" in ran.err
    finally:
        git(bench.project, "revert", "--no-edit", "HEAD")


def test_other_bytes_under_the_right_spec_are_refused(bench: Bench) -> None:
    """A layer exchanged for one of a backdoor, and every document made to fit."""
    store = LayoutStore(Layout.open(bench.root / "image"))
    found = store.get_manifest("seed")
    assert found is not None
    manifest = Manifest.parse(found.body, "x")
    config = json.loads(b"".join(store.open_blob(manifest.config)))
    backdoor, diff_id = layer("nix/store/backdoor")
    blob = put(store, backdoor, MediaType.LAYER_ZSTD)
    config["rootfs"]["diff_ids"][0] = diff_id
    first = replace(manifest.layers[0], digest=blob.digest, size=blob.size)
    forged = replace(
        manifest,
        config=put(store, canonical_json.dumps(config), MediaType.CONFIG),
        layers=(first, *manifest.layers[1:]),
    )
    done = store.put_manifest(forged.dump(), MediaType.MANIFEST, "forged")
    ran = bench.attest(image=f"oci:{bench.root / 'image'}:forged")
    assert ran.code == 1
    assert f"of the image's own spec, and the image is {done.digest}" in ran.err


def test_attesting_again_adds_beside_what_is_there(bench: Bench) -> None:
    first, second = json.loads(bench.attest().out), json.loads(bench.attest().out)
    assert first["image"] == second["image"]
    shown = nix_seed("inspect", bench.image, "--json", cache=bench.root / "cache")
    assert json.loads(shown.out)["digest"] == first["image"], "the image itself is as it was"


def test_publish_builds_and_attests(bench: Bench, tmp_path: Path) -> None:
    image = f"oci:{tmp_path / 'published'}:seed"
    ran = nix_seed(
        *("publish", image, "--flake", bench.project, "--builder", "me", "--source", SOURCE),
        *("--key", bench.root / "me.key"),
        cache=bench.root / "cache",
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    assert f"commit   {git(bench.project, 'rev-parse', 'HEAD')} of {SOURCE}" in ran.out


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Running]:
    with docker_registry(tmp_path / "registry") as running:
        yield running


def publish(bench: Bench, image: str, *arguments: str | Path, password: str = PASSWORD) -> Ran:
    """Publish *image*, with a password on standard input."""
    return nix_seed(
        *("publish", image, "--flake", bench.project, "--builder", "me", "--source", SOURCE),
        *("--key", bench.root / "me.key", "--username", USER, "--password-stdin", *arguments),
        cache=bench.root / "cache",
        prefix=("sh", "-c", 'echo "$0" | "$@"', password),
    )


def writes(registry: Running) -> list[str]:
    """The manifests that were written, by the last part of their address."""
    return re.findall(r'"PUT \S+/manifests/(\S+) ', unquote(registry.log.read_text()))


def test_publish_names_an_image_when_its_builder_has_attested_it(
    bench: Bench, registry: Running
) -> None:
    ran = publish(bench, f"{registry.host}/own/seed:dev")
    assert ran.code == 0, ran.err
    head = git(bench.project, "rev-parse", "HEAD")
    key, commit, dev = re.findall(r"^tag        (\S+)$", ran.out, re.MULTILINE)
    assert (commit, dev) == (f"{head}-x86_64-linux", "dev")
    image, *attested = writes(registry)[:-3]
    assert attested, "there is something beside it"
    assert writes(registry)[-3:] == [key, commit, dev]
    assert f"@{image}" in ran.out
    shown = nix_seed(
        *("inspect", f"{registry.host}/own/seed:dev", "--json", "--username", USER),
        "--password-stdin",
        cache=bench.root / "cache",
        prefix=("sh", "-c", 'echo "$0" | "$@"', PASSWORD),
    )
    assert json.loads(shown.out)["digest"] == image


def test_an_image_to_ship_is_published_in_a_repository_of_its_own(
    bench: Bench, registry: Running
) -> None:
    """The flake has no attribute for it: it is made of the package ``default``."""
    ran = publish(bench, f"{registry.host}/own/run:dev", "--kind", "run")
    assert ran.code == 0, ran.err
    head = git(bench.project, "rev-parse", "HEAD")
    assert f"commit   {head} of {SOURCE}" in ran.out
    shown = nix_seed(
        *("inspect", f"{registry.host}/own/run:dev", "--json", "--username", USER),
        "--password-stdin",
        cache=bench.root / "cache",
        prefix=("sh", "-c", 'echo "$0" | "$@"', PASSWORD),
    )
    assert json.loads(shown.out)["kind"] == "run"
    before = writes(registry)
    ran = publish(bench, f"{registry.host}/own/run:seed")
    assert ran.code == 2
    assert f"{head}-x86_64-linux is an image of the kind run" in ran.err
    assert writes(registry) == before, "nothing was sent"


def test_publish_sends_nothing_that_could_not_be_attested(
    bench: Bench, registry: Running, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    ran = nix_seed(
        *("policy", "init", "--source", SOURCE, "--log", log, "--key", f"me={bench.root}/me.pub"),
        cache=bench.root / "cache",
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    shutil.rmtree(log)
    log.write_text("no log any more")
    policy = tmp_path / "trust.toml"
    ran = publish(bench, f"{registry.host}/own/seed:dev", "--policy", policy)
    assert ran.code == 3, ran.out + ran.err
    assert f"there is no log in {log}" in ran.err
    assert writes(registry) == []


def test_publish_refuses_a_dirty_tree_before_any_work(bench: Bench, tmp_path: Path) -> None:
    path = bench.project / "greet" / "main.c"
    before = path.read_text()
    path.write_text(before + "\n")
    try:
        ran = nix_seed(
            *("publish", f"oci:{tmp_path / 'no'}:seed", "--flake", bench.project),
            *("--builder", "me", "--source", SOURCE, "--key", bench.root / "me.key"),
            cache=bench.root / "cache",
        )
    finally:
        path.write_text(before)
    assert ran.code == 2
    assert "has changes that no commit holds" in ran.err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "name", ["ecr-without-the-api-has-immutable-tags", "ecr-has-immutable-tags"]
)
def test_attest_where_tags_cannot_be_moved(name: str, bench: Bench, tmp_path: Path) -> None:
    """A second document is listed by the API, or is refused before anything is signed."""
    family, log, me = FAMILIES[name], tmp_path / "log", bench.root / "me.key"
    init = ("policy", "init", "--source", SOURCE, "--log", log, "--key", f"me={bench.root}/me.pub")
    assert nix_seed(*init, cache=bench.root / "cache", cwd=tmp_path).code == 0
    more = ("--policy", tmp_path / "trust.toml", "--sbom", "none", "--username", QUIRKS_USER)
    tree = ("--flake", bench.project, "--source", SOURCE, "--builder", "me", "--key", me)
    sizes, ran = [], []
    with quirky_registry(family.quirk, api=family.api) as running:
        image = f"{running.host}/own/seed:dev"
        for verb in ("publish", "attest"):
            word = ("sh", "-c", 'echo "$0" | "$@" --password-stdin', QUIRKS_PASSWORD)
            ran += [nix_seed(verb, image, *tree, *more, cache=bench.root / "cache", prefix=word)]
            sizes += [EmbeddedLog.open(log).checkpoint().head.size]
    assert (ran[0].code, sizes[0]) == (0, 1), ran[0].err
    if family.api:
        assert (ran[1].code, sizes[1]) == (0, 2), ran[1].err
    else:
        assert (ran[1].code, sizes[1]) == (3, 1), ran[1].err
        assert "exempt the tags sha256-*" in ran[1].err
        assert "nothing was signed" in ran[1].err
