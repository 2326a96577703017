"""``nix-seed ci use`` on the machines that tests are not: Macs, and those with a daemon.

What root is asked for is recorded; what comes of it is tested where it can be (``tests/use``,
``tests/setup``, ``tests/action``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nix_seed.cli.setup import ci_fill, ci_use
from nix_seed.cli.setup.ci_fill import Used
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.core import processes as own_command
from nix_seed.core.digests import Digest
from nix_seed.core.errors import CouldNotCheck
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.reference import Reference
from nix_seed.registry.open import Stores
from nix_seed.setup import ci_host as ci_store
from nix_seed.setup.ci_host import CiHost
from nix_seed.use import hydrate as hydrating
from nix_seed.use.hydrate import Hydrated, Seconds
from nix_seed.use.mount import linux

DIGEST = Digest("a" * 64)
IMAGE = Reference("ghcr.io", "o/r-seed", digest=DIGEST)
NIX = Path("/nix/store/00000000000000000000000000000000-nix/bin")
SECONDS = Seconds(1.0, 2.0, 3.0, 0.5, 4.0)
PATH = StorePath("0" * 32 + "-x")
HYDRATED = Hydrated(DIGEST, "sha256-x=", Path("/"), (PATH,), (), 0, 7, SECONDS, NIX)
ANSWER = {
    "image": str(DIGEST),
    "narHash": "sha256-x=",
    "root": "/",
    "added": [f"/nix/store/{'0' * 32}-{name}" for name in "abc"],
    "skipped": [],
    "reused": 0,
    "bytesFetched": 7,
    "seconds": {"fetch": 1.0, "decode": 2.0, "unpack": 3.0, "register": 0.5, "total": 4.0},
    "nix": str(NIX),
    "whole": True,
}
OPTIONS = {
    "for": "",
    "accept_licence": "",
    "flake": "",
    "seed_attr": "",
    "policy": "",
    "ca_file": "",
    "registry_user": "ci",
    "nix_conf": "",
    "offline": "",
    "eager": "",
    "complete": "",
    "image": "ghcr.io/o/r-seed",
    "registry": "",
}


class Machine:
    """Its ``/nix`` goes through *states*; it remembers what root, and what the user, did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *states: str) -> None:
        self.states = list(states)
        self.root: list[tuple[list[str], str]] = []
        self.user: list[dict[str, Any]] = []
        monkeypatch.setattr(ci_store, "store_state", self.state)
        monkeypatch.setattr(own_command, "run_as_root", self.as_root)
        monkeypatch.setattr(hydrating, "hydrate", self.as_user)

    def state(self) -> str:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def as_root(self, arguments: Sequence[str], stdin: str = "") -> Any:
        self.root.append((list(arguments), stdin))
        return {} if arguments[0] == "ci" else ANSWER

    def as_user(self, stores: Stores, image: Any, **how: Any) -> Hydrated:
        self.user.append(how)
        return HYDRATED


def fill(options: dict[str, Any], token: str = "") -> Hydrated:
    secrets = {"SEED_REGISTRY_TOKEN": token} if token else {}
    job = CiJob(OPTIONS | options, CiHost({}), secrets)
    return ci_fill.fill(job, IMAGE, "aarch64-darwin")


def test_a_fresh_mac_has_a_store_made_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root makes the volume, which takes root; all that is foreign is unpacked as the user."""
    monkeypatch.setattr("os.geteuid", lambda: 501)
    monkeypatch.setattr(linux, "why_not_here", lambda: "only Linux has what a mount needs")
    machine = Machine(monkeypatch, "absent", "ours")
    found = fill({"accept_licence": "Some SDK, other"})
    assert machine.root == [(["ci", "store", "501"], "")]
    [how] = machine.user
    assert how["system"] == "aarch64-darwin"
    assert how["accepted"] == ("Some SDK", "other")
    assert (found.added, found.fetched, found.nix) == ((PATH,), 7, NIX)


def test_an_ordinary_user_has_root_mount_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 501)
    monkeypatch.setattr(linux, "why_not_here", lambda: None)
    machine = Machine(monkeypatch, "ours")
    found = fill({"complete": "true"}, token="hush")
    [(arguments, stdin)] = machine.root
    assert arguments == [
        *("mount", str(IMAGE), "--json", "--no-verify", "--system", "aarch64-darwin"),
        *("--complete", "--username", "ci", "--password-stdin"),
    ]
    assert stdin == "hush\n"
    assert (len(found.added), machine.user) == (3, [])


def test_the_token_is_for_the_registry_of_the_seeds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull request's ``seed.lock`` may name any, which would be asked as root."""
    monkeypatch.setattr("os.geteuid", lambda: 501)
    monkeypatch.setattr(linux, "why_not_here", lambda: None)
    machine = Machine(monkeypatch, "ours")
    job = CiJob(OPTIONS, CiHost({}), {"SEED_REGISTRY_TOKEN": "hush"})
    ci_fill.fill(job, Reference("evil.example", "o/r-seed", digest=DIGEST), "aarch64-darwin")
    [(arguments, stdin)] = machine.root
    assert "--username" not in arguments
    assert stdin == "\n"


@pytest.mark.parametrize("options", [{"eager": "true"}, {"for": ".#checks"}])
def test_what_is_wanted_unpacked_is_not_mounted(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 501)
    monkeypatch.setattr(linux, "why_not_here", lambda: None)
    machine = Machine(monkeypatch, "ours")
    fill(options)
    assert (len(machine.root), len(machine.user)) == (0, 1)


def test_where_root_cannot_mount_the_user_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 501)
    monkeypatch.setattr(linux, "why_not_here", lambda: None)
    machine = Machine(monkeypatch, "ours")

    def refuse(arguments: Sequence[str], stdin: str = "") -> Any:
        raise CouldNotCheck("nix-seed mount failed as root, with exit code 3")

    monkeypatch.setattr(own_command, "run_as_root", refuse)
    assert fill({}) == HYDRATED
    assert len(machine.user) == 1


def test_a_store_of_a_daemons_is_filled_by_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, "roots")
    policy = tmp_path / "trust.toml"
    policy.write_text("")
    options = {"flake": str(tmp_path), "seed_attr": "sub#other", "for": ".#checks .#x"}
    found = fill(options, token="hush")
    [(arguments, stdin)] = machine.root
    assert arguments == [
        *("hydrate", str(IMAGE), "--json", "--no-verify", "--eager"),
        *("--system", "aarch64-darwin"),
        *("--flake", str(tmp_path / "sub"), "--for=.#checks", "--for=.#x"),
        *("--attr=other", f"--policy={policy}"),
        *("--username", "ci", "--password-stdin"),
    ]
    assert stdin == "hush\n", "a token is no argument: everyone on a machine sees those"
    assert machine.user == []
    assert found.to_json() == ANSWER


def test_what_root_is_asked_for_exists() -> None:
    """The options that the record above shows are those of the command."""
    from nix_seed.cli.use.hydrate import command

    known = {name for each in command.params for name in each.opts}
    wanted = {"--json", "--no-verify", "--system", "--flake", "--for", "--username"}
    assert (
        wanted | {"--password-stdin", "--accept-licence", "--ca-file", "--attr", "--policy"}
        <= known
    )


def variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, used: Used, **options: str
) -> tuple[str, str]:
    """Return what the steps after find in GITHUB_ENV and GITHUB_PATH."""
    env, path = tmp_path / "env", tmp_path / "path"
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.delenv("NIX_CONFIG", raising=False)
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_ENV": str(env), "GITHUB_PATH": str(path)}
    ci_use.pass_on(CiJob(OPTIONS | options, CiHost(environ), {}), used)
    return env.read_text(), path.read_text() if path.exists() else ""


def used(*, exact: bool) -> Used:
    return Used(image=IMAGE, digest=DIGEST, how="test", exact=exact, fills=(HYDRATED,))


def test_a_mac_uses_its_own_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ci_store, "store_state", lambda: "ours")
    env, path = variables(monkeypatch, tmp_path, used(exact=True))
    assert "NIX_SSL_CERT_FILE=/etc/ssl/cert.pem\n" in env
    assert "build-users-group =\n" in env
    assert "substitute = false\n" in env
    assert path == f"{NIX}\n"


def test_a_daemon_keeps_its_builders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ci_store, "store_state", lambda: "roots")
    env, _ = variables(monkeypatch, tmp_path, used(exact=True))
    assert "build-users-group" not in env
    assert "NIX_SSL_CERT_FILE" not in env


@pytest.mark.parametrize(
    ("exact", "options", "off"),
    [
        (True, {}, True),
        (True, {"offline": "false"}, False),
        (True, {"for": ".#checks"}, False),
        (False, {}, False),
    ],
)
def test_when_nix_is_told_to_use_no_network(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    exact: bool,
    options: dict[str, str],
    off: bool,
) -> None:
    monkeypatch.setattr(ci_store, "store_state", lambda: "ours")
    env, _ = variables(monkeypatch, tmp_path, used(exact=exact), nix_conf="cores = 3", **options)
    assert ("substitute = false" in env) is off
    assert "cores = 3\n" in env, "the user's own lines come last, and so win"
