"""Fail before the work: whatever can be refused is refused before anything is sent or signed.

A real registry counts what it was sent, a real log what it was given. Each wrong argument of each
verb must leave both as they were.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.trust.sign import KeySigner, write_key_pair
from support import built
from support.distribution import make_project
from support.registries import PASSWORD, USER, Running, docker_registry
from support.seeds import Ran, build, nix_seed

SOURCE = "https://forge.example/owner/project"
SYSTEM = "x86_64-linux"
LOGIN = {"NIX_SEED_REGISTRY_USERNAME": USER, "NIX_SEED_REGISTRY_PASSWORD": PASSWORD}
# Nobody who runs these tests in a CI job may be taken for the job.
NO_IDENTITY = {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "", "SIGSTORE_ID_TOKEN": "", "GITHUB_ACTIONS": ""}


@dataclass(frozen=True)
class World:
    """A project and its image, two keys, a log, a policy that knows one key, and a registry."""

    root: Path
    project: Path
    registry: Running

    @property
    def policy(self) -> Path:
        return self.root / "trust.toml"

    @property
    def log(self) -> Path:
        return self.root / "log"

    def held(self) -> tuple[list[str], str]:
        """What the registry was sent, and what the log holds."""
        told = self.registry.log.read_text()
        sent = re.findall(r'"(?:PUT|PATCH) (\S+) ', told)
        files = sorted(path for path in (self.log / "public").rglob("*") if path.is_file())
        return sent, hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Ran:
        return nix_seed(
            *arguments,
            cache=self.root / "cache",
            cwd=self.root,
            env=LOGIN | NO_IDENTITY | dict(env or {}),
        )


@pytest.fixture(scope="module")
def world(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("preflight")
    project = make_project("hello", root / "project", distribution)
    build(project, "-o", root / "image", "--tag", "seed", cache=built.layers(root / "cache"))
    for name in ("me", "stranger"):
        write_key_pair(KeySigner.generate(), root / f"{name}.key")
    write_key_pair(KeySigner.generate(), root / "locked.key", "right")
    (root / "not-a.key").write_text("nothing of the kind\n")
    with docker_registry(root / "registry") as registry:
        made = World(root, project, registry)
        ran = made.run(
            *("policy", "init", "--source", SOURCE, "--log", made.log),
            *("--key", f"me={root}/me.pub", "--promoter", f"me={root}/me.pub"),
        )
        assert ran.code == 0, ran.err
        yield made


def edited(world: World, old: str, new: str) -> Path:
    text = world.policy.read_text()
    assert old in text
    path = world.root / "edited.toml"
    path.write_text(text.replace(old, new))
    return path


def another_source(world: World) -> Path:
    return edited(world, f'source = "{SOURCE}"', 'source = "https://forge.example/other/one"')


def another_system(world: World) -> Path:
    return edited(world, f'systems = ["{SYSTEM}"]\n', f'systems = ["aarch64-linux", "{SYSTEM}"]\n')


def of_another_system(world: World) -> Path:
    """A policy whose builder of this system is somebody else."""
    path = another_system(world)
    text = path.read_text()
    mine, stranger = '# systems = ["x86_64-linux"]', (world.root / "stranger.pub").read_text()
    other = f'[[builders]]\nid = "other"\noperator = "other"\nkey = """\n{stranger}"""\n'
    path.write_text(text.replace(mine, 'systems = ["aarch64-linux"] #', 1) + other)
    return path


def revoked(world: World) -> Path:
    return edited(world, "# revokedAt = 2026-06-01T00:00:00Z", "revokedAt = 2020-06-01T00:00:00Z #")


def not_yet(world: World) -> Path:
    """A policy by which the builder begins later: a clock that is behind may think so, too."""
    return edited(world, "# notBefore = 2026-01-01T00:00:00Z", "notBefore = 2125-06-01T00:00:00Z #")


def no_log(world: World) -> Path:
    """A policy whose log lies elsewhere, where nobody can write to it."""
    broken = world.root / "broken"
    if not broken.exists():
        shutil.copytree(world.log, broken)
        (broken / "lock").unlink(missing_ok=True)
        (broken / "lock").mkdir()
    return edited(world, 'url = "log"', 'url = "broken"')


def gone_log(world: World) -> Path:
    return edited(world, 'url = "log"', 'url = "nowhere"')


@dataclass(frozen=True)
class Wrong:
    """A wrong argument: what is given, how it ends, and what is said."""

    code: int
    words: str
    key: str | None = "me.key"
    policy: Callable[[World], Path] | None = None
    env: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()


CASES = {
    "no key": Wrong(2, "no identity to sign with", key=None),
    "unreadable key": Wrong(2, "there is no key", key="nope.key"),
    "another file for a key": Wrong(2, "is not a private key in PEM", key="not-a.key"),
    "public key": Wrong(2, "is not a private key in PEM", key="me.pub"),
    "no passphrase": Wrong(2, "has a passphrase", key="locked.key"),
    "wrong passphrase": Wrong(
        2, "passphrase", key="locked.key", env=(("NIX_SEED_KEY_PASSPHRASE", "wrong"),)
    ),
    "unknown builder": Wrong(2, "the policy calls key", key="stranger.key"),
    "no policy": Wrong(2, "absent.toml", policy=lambda world: world.root / "absent.toml"),
    "another source": Wrong(
        2, "the policy is of https://forge.example/other/one", policy=another_source
    ),
    "revoked builder": Wrong(2, "was revoked at 2020-06-01", policy=revoked),
    "builder that is yet to begin": Wrong(
        2, "counts from 2125-06-01 00:00 UTC on, and it is 20", policy=not_yet
    ),
    "another builder's system": Wrong(
        2, f"does not let me build for {SYSTEM}", policy=of_another_system
    ),
    "unwritable log": Wrong(3, "appending to the log in", policy=no_log),
    "log that is gone": Wrong(3, "there is no log in", policy=gone_log),
    "no rights": Wrong(3, "may be pushed to", env=(("NIX_SEED_REGISTRY_PASSWORD", "wrong"),)),
}


def given(world: World, wrong: Wrong) -> tuple[str | Path, ...]:
    key = () if wrong.key is None else ("--key", world.root / wrong.key)
    policy = world.policy if wrong.policy is None else wrong.policy(world)
    return (*key, "--policy", policy, *wrong.more)


def refused(world: World, ran: Ran, wrong: Wrong, before: tuple[list[str], str]) -> None:
    assert ran.code == wrong.code, ran.out + ran.err
    assert wrong.words in ran.err
    assert world.held() == before, "something was sent, or signed and logged"


@pytest.mark.parametrize("name", CASES)
def test_publish_sends_and_signs_nothing(world: World, name: str) -> None:
    wrong, before = CASES[name], world.held()
    ran = world.run(
        *("publish", f"{world.registry.host}/own/seed:dev", "--flake", world.project),
        *("--source", SOURCE, *given(world, wrong)),
        env=dict(wrong.env),
    )
    refused(world, ran, wrong, before)
    assert "writing" not in ran.err, "layers were made for nothing"
    assert "evaluating" not in ran.err, "the flake was evaluated for nothing"


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"no rights"}))
def test_attest_sends_and_signs_nothing(world: World, name: str) -> None:
    wrong, before = CASES[name], world.held()
    image = {path: path.stat().st_mtime_ns for path in (world.root / "image").rglob("*")}
    ran = world.run(
        *("attest", f"oci:{world.root / 'image'}:seed", "--flake", world.project),
        *("--source", SOURCE, *given(world, wrong)),
        env=dict(wrong.env),
    )
    refused(world, ran, wrong, before)
    assert {path: path.stat().st_mtime_ns for path in (world.root / "image").rglob("*")} == image


WRONG_OPTIONS: dict[str, tuple[tuple[int, str, tuple[str, ...]], ...]] = {
    "reference": (
        (2, "names no registry", ("seed",)),
        (2, "is no tag to publish to", ("{host}/own/seed",)),
        (2, "a name of the index over all systems", ("{host}/own/seed:latest",)),
        (2, "a name of the index over all systems", ("{host}/own/seed:" + "ab" * 20,)),
        (2, "a name of the index over all systems", ("oci:absent:latest",)),
        (2, "is no tag to publish to", ("{host}/own/seed@sha256:" + "ab" * 32,)),
        (2, "upper-case letters", ("{host}/own/Seed:dev",)),
        (2, "is not a tag", ("{host}/own/seed:-dev",)),
        (2, "has no scheme", ("http://{host}/own/seed:dev",)),
        (2, "names no directory", ("oci:",)),
    ),
    "flake": (
        (2, "does not exist", ("--flake", "{root}/absent")),
        (2, "Git", ("--flake", "{root}/log")),
    ),
    "attr": ((2, "nonesuch", ("--attr", "nonesuch")),),
    "exclude": (
        (2, "is no output of a flake", ("--exclude", "packages.")),
        (2, "nonesuch", ("--exclude", "packages.nonesuch")),
    ),
    "system": (
        (2, "does not let me build for sparc", ("--system", "sparc")),
        (2, "m68k-linux", ("--system", "m68k-linux")),
    ),
    "builder": ((2, "somebody", ("--builder", "somebody")),),
    "policy_file": (
        (2, "absent.toml", ("--policy", "{root}/absent.toml")),
        (2, "not-a.key", ("--policy", "{root}/not-a.key")),
    ),
    "key": ((2, "there is no key", ("--key", "{root}/nope.key")),),
    "sigstore": (
        (2, "absent.json", ("--sigstore", "{root}/absent.json")),
        (2, "", ("--sigstore", "{root}/not-a.key")),
    ),
    "source": (
        (2, "the policy is of", ("--source", "https://forge.example/other/one")),
        (2, "", ("--source", "nowhere")),
    ),
    "kind": ((2, "'base' is not one of", ("--kind", "base")),),
    "sboms": ((2, "'swid' is not one of", ("--sbom", "swid")),),
    "store": ((2, "is a file", ("--store", "{root}/not-a.key")),),
    "username": ((2, "password", ("--username", "me")),),
    "password_stdin": ((2, "--username", ("--password-stdin",)),),
    "plain_http": ((3, "", ("registry.invalid/own/seed:dev", "--plain-http")),),
    "ca_file": (
        (2, "absent.pem", ("--ca-file", "{root}/absent.pem")),
        (2, "not-a.key", ("--ca-file", "{root}/not-a.key")),
    ),
}


def test_every_option_of_publish_has_its_wrong_values() -> None:
    from nix_seed.cli.release.publish import command

    manner = {"as_json", "quiet", "verbose"}
    assert {each.name for each in command.params} - manner == WRONG_OPTIONS.keys()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (name, number)
        for name, all_of_it in WRONG_OPTIONS.items()
        for number in range(len(all_of_it))
    ],
)
def test_publish_with_any_wrong_argument_sends_and_signs_nothing(
    world: World, name: str, number: int
) -> None:
    code, words, wrong = WRONG_OPTIONS[name][number]
    wrong = tuple(each.format(host=world.registry.host, root=world.root) for each in wrong)
    right: dict[str, str] = {
        "--flake": str(world.project),
        "--source": SOURCE,
        "--key": str(world.root / "me.key"),
        "--policy": str(world.policy),
    }
    if name == "sigstore":
        del right["--key"]
    options = [part for key, value in right.items() if key not in wrong for part in (key, value)]
    target = () if name in ("reference", "plain_http") else (f"{world.registry.host}/own/seed:dev",)
    before = world.held()
    ran = world.run("publish", *target, *wrong, *options)
    assert ran.code == code, ran.out + ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert world.held() == before, "something was sent, or signed and logged"
    assert "writing" not in ran.err, "layers were made for nothing"


def test_no_format_of_a_bill_of_materials(world: World) -> None:
    before = world.held()
    ran = world.run(
        *("publish", f"{world.registry.host}/own/seed:dev", "--flake", world.project),
        *("--source", SOURCE, "--key", world.root / "me.key", "--sbom", "none", "--sbom", "spdx"),
    )
    assert (ran.code, world.held()) == (2, before), ran.err


def test_a_target_that_is_a_file(world: World) -> None:
    (world.root / "file").write_text("")
    ran = world.run(
        *("publish", f"oci:{world.root / 'file' / 'below'}:seed", "--flake", world.project),
        *("--source", SOURCE, "--key", world.root / "me.key"),
    )
    assert ran.code == 2, ran.err
    assert f"{world.root / 'file'} is a file" in ran.err
    assert "evaluating" not in ran.err


def test_who_may_not_push_is_told_before_anything_is_planned(world: World) -> None:
    before = world.held()
    ran = world.run(
        *("build", world.project, "--push", f"{world.registry.host}/own/other:dev"),
        env={"NIX_SEED_REGISTRY_PASSWORD": "wrong"},
    )
    assert ran.code == 3, ran.err
    assert "may be pushed to" in ran.err
    assert "laying" not in ran.err
    assert world.held() == before


PROMOTING = {
    name: CASES[name]
    for name in (
        "no key",
        "unreadable key",
        "public key",
        "wrong passphrase",
        "no policy",
    )
} | {"no promoter": Wrong(2, "may not promote", key="stranger.key")}


@pytest.fixture(scope="module")
def attested(world: World) -> str:
    """The commit, attested in a layout of its own; a release of it is possible."""
    image = f"oci:{world.root / 'releases'}:seed"
    key = ("--key", world.root / "me.key", "--policy", world.policy)
    ran = world.run("publish", image, "--flake", world.project, "--source", SOURCE, *key)
    assert ran.code == 0, ran.err
    found = re.search(r"^  commit   ([0-9a-f]{40}) of", ran.out, re.MULTILINE)
    assert found is not None
    return found[1]


def release(world: World, commit: str, *arguments: str | Path, **how: Mapping[str, str]) -> Ran:
    to = ("--to", f"oci:{world.root / 'releases'}", "--state", world.root / "state")
    return world.run("promote", commit, *to, *arguments, **how)


def files(world: World) -> set[Path]:
    return set((world.root / "releases" / "blobs").rglob("*"))


@pytest.mark.parametrize("name", PROMOTING)
def test_promote_sends_and_signs_nothing(world: World, attested: str, name: str) -> None:
    wrong, before, there = PROMOTING[name], world.held(), files(world)
    ran = release(world, attested, *given(world, wrong), env=dict(wrong.env))
    refused(world, ran, wrong, before)
    assert files(world) == there


def test_promote_writes_no_document_where_it_cannot_log(world: World, attested: str) -> None:
    """The policy's exact bytes are in every record, so its own log is what breaks here."""
    log, there = EmbeddedLog.open(world.log), files(world)
    size = log.checkpoint().head.size
    lock = world.log / "lock"
    lock.unlink()
    lock.mkdir()
    try:
        ran = release(world, attested, "--key", world.root / "me.key", "--policy", world.policy)
    finally:
        lock.rmdir()
    assert ran.code == 3, ran.err
    assert files(world) == there
    assert log.checkpoint().head.size == size
    done = release(world, attested, "--key", world.root / "me.key", "--policy", world.policy)
    assert done.code == 0, done.err
    assert files(world) > there
