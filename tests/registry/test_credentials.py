"""Credentials from Docker's and podman's files, from real helper programs and the environment."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.registry.credentials import Credential, Keyring, run_helper
from support.trees import let_others_reach


def entry(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def docker(home: Path, config: Any) -> Path:
    path = home / ".docker/config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def pair(found: Credential | None) -> tuple[str, str] | None:
    return None if found is None else (found.username, found.password)


def test_nothing_is_known(tmp_path: Path) -> None:
    assert Keyring({}, tmp_path).find("ghcr.io", "o/r") is None
    assert Keyring().find("ghcr.io", "o/r") is None


def test_a_file_that_was_never_written_to_holds_nothing(tmp_path: Path) -> None:
    docker(tmp_path, "\n")
    assert Keyring({}, tmp_path).find("ghcr.io", "o/r") is None


def as_nobody(deed: Callable[[], object]) -> int:
    """Return 0 once another user has done *deed*, 9 for an ``InputError`` with what to do."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setuid(65534)
            deed()
            os._exit(0)
        except InputError as error:
            os._exit(9 if "REGISTRY_AUTH_FILE" in (error.hint or "") else 8)
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
def test_files_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only root can have written is nobody's login; a HOME of another user's is named."""
    let_others_reach(tmp_path)
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "home").mkdir()
    monkeypatch.setattr("nix_seed.registry.credentials._RUN", str(tmp_path / "run"))
    ring = Keyring({}, tmp_path / "home")
    assert as_nobody(lambda: ring.find("ghcr.io", "o/r")) == 0
    docker(tmp_path / "home", {}).parent.chmod(0o700)
    assert as_nobody(lambda: ring.find("ghcr.io", "o/r")) == 9


def test_docker_config(tmp_path: Path) -> None:
    docker(tmp_path, {"auths": {"ghcr.io": entry("me", "pass:word"), "other.io": entry("x", "y")}})
    found = Keyring({}, tmp_path).find("ghcr.io", "o/r")
    assert pair(found) == ("me", "pass:word")
    assert str(found) == f"me (from {tmp_path}/.docker/config.json, ghcr.io)"
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / ".docker").rename(elsewhere)
    assert pair(Keyring({"DOCKER_CONFIG": str(elsewhere)}, tmp_path).find("other.io", "r")) == (
        "x",
        "y",
    )


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"]
)
def test_docker_hub_by_its_names(tmp_path: Path, key: str) -> None:
    docker(tmp_path, {"auths": {key: entry("me", "pw")}})
    assert pair(Keyring({}, tmp_path).find("docker.io", "library/debian")) == ("me", "pw")


def test_podman_files_come_first_and_the_most_exact_entry_wins(tmp_path: Path) -> None:
    docker(tmp_path, {"auths": {"ghcr.io": entry("docker", "1")}})
    run = tmp_path / "run"
    (run / "containers").mkdir(parents=True)
    auths = {
        "ghcr.io": entry("host", "2"),
        "ghcr.io/o": entry("owner", "3"),
        "ghcr.io/o/r": entry("repo", "4"),
    }
    (run / "containers/auth.json").write_text(json.dumps({"auths": auths}))
    keyring = Keyring({"XDG_RUNTIME_DIR": str(run)}, tmp_path)
    assert pair(keyring.find("ghcr.io", "o/r")) == ("repo", "4")
    assert pair(keyring.find("ghcr.io", "o/other")) == ("owner", "3")
    assert pair(keyring.find("ghcr.io", "o2/r")) == ("host", "2")
    assert pair(Keyring({}, tmp_path).find("ghcr.io", "o/r")) == ("docker", "1")
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps({"auths": {"quay.io": entry("q", "5")}}))
    chosen = Keyring({"REGISTRY_AUTH_FILE": str(alone), "XDG_RUNTIME_DIR": str(run)}, tmp_path)
    assert chosen.find("ghcr.io", "o/r") is None
    assert pair(chosen.find("quay.io", "r")) == ("q", "5")


def test_tokens_in_files(tmp_path: Path) -> None:
    docker(
        tmp_path,
        {
            "auths": {
                "a.io": {"identitytoken": "refresh"},
                "b.io": {"registrytoken": "bearer"},
                "c.io": {"username": "u", "password": "p"},
            }
        },
    )
    keyring = Keyring({}, tmp_path)
    a, b = keyring.find("a.io", "r"), keyring.find("b.io", "r")
    assert a is not None
    assert a.identity_token == "refresh"
    assert b is not None
    assert b.bearer == "bearer"
    assert pair(keyring.find("c.io", "r")) == ("u", "p")


HELPER = """#!/bin/sh
read server
test "$1" = get || exit 9
case "$server" in
  ghcr.io) echo '{"ServerURL": "ghcr.io", "Username": "helped", "Secret": "s3cret"}' ;;
  token.io) echo '{"ServerURL": "token.io", "Username": "<token>", "Secret": "refresh"}' ;;
  https://index.docker.io/v1/) echo '{"Username": "hub", "Secret": "h"}' ;;
  bad.io) echo 's3cret but no JSON' ;;
  deep.io) printf '%99999s' | tr ' ' '[' ;;
  fail.io) echo 'the keychain s3cret is locked'; exit 1 ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/docker-credential-testing"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("helper")
def test_helpers(tmp_path: Path) -> None:
    # `docker login` leaves an empty entry behind where a helper keeps the secret.
    docker(tmp_path, {"credsStore": "testing", "auths": {"ghcr.io": {}, "x.io": entry("a", "b")}})
    keyring = Keyring({}, tmp_path)
    found = keyring.find("ghcr.io", "o/r")
    assert pair(found) == ("helped", "s3cret")
    assert str(found) == "helped (from docker-credential-testing)"
    assert pair(keyring.find("docker.io", "library/debian")) == ("hub", "h")
    assert pair(keyring.find("x.io", "r")) == ("a", "b")
    assert keyring.find("unknown.io", "r") is None
    token = keyring.find("token.io", "r")
    assert token is not None
    assert token.identity_token == "refresh"
    docker(tmp_path, {"credHelpers": {"ghcr.io": "testing"}, "auths": {"ghcr.io": entry("n", "o")}})
    assert pair(keyring.find("ghcr.io", "o/r")) == ("helped", "s3cret")


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("bad.io", "docker-credential-testing answered what is not its protocol"),
        ("deep.io", "docker-credential-testing answered what is not its protocol"),
        ("fail.io", "docker-credential-testing failed with exit code 1 for fail.io"),
    ],
)
def test_helpers_that_fail_say_so_without_the_secret(
    tmp_path: Path, server: str, message: str
) -> None:
    docker(tmp_path, {"credsStore": "testing"})
    with pytest.raises(CouldNotCheck) as caught:
        Keyring({}, tmp_path).find(server, "r")
    assert caught.value.message == message
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint} {caught.value.detail}"


def test_a_helper_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="docker-credential-absent is configured, but not on PATH"):
        run_helper("absent", "ghcr.io")
    docker(tmp_path, {"credsStore": "../../bin/sh"})
    with pytest.raises(InputError, match=r"'../../bin/sh' is no name of a credential helper"):
        Keyring({}, tmp_path).find("ghcr.io", "r")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"auths": {"ghcr.io": {"auth": "c2VjcmV0"', "is not valid JSON"),
        ("[]", "an object is wanted"),
        ({"auths": []}, None),
        ({"auths": [1]}, "auths must be an object"),
        ({"auths": {"ghcr.io": "x"}}, "an object is wanted"),
        ({"auths": {"ghcr.io": {"auth": "!!"}}}, "auth is not base64 of user:password"),
        ({"auths": {"ghcr.io": {"auth": "c2VjcmV0"}}}, "auth is not base64 of user:password"),
        ({"credsStore": 7}, "credsStore must be a string"),
    ],
)
def test_files_that_cannot_be_meant(tmp_path: Path, config: Any, message: str | None) -> None:
    path = docker(tmp_path, config)
    keyring = Keyring({}, tmp_path)
    if message is None:
        assert keyring.find("ghcr.io", "r") is None
        return
    with pytest.raises(InputError) as caught:
        keyring.find("ghcr.io", "r")
    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message
    assert "c2VjcmV0" not in str(caught.value)


def test_environment(tmp_path: Path) -> None:
    docker(tmp_path, {"auths": {"ghcr.io": entry("file", "f")}})
    names = {"NIX_SEED_REGISTRY_USERNAME": "env", "NIX_SEED_REGISTRY_PASSWORD": "e"}
    assert pair(Keyring(names, tmp_path).find("ghcr.io", "r")) == ("env", "e")
    bound = names | {"NIX_SEED_REGISTRY": "quay.io"}
    assert pair(Keyring(bound, tmp_path).find("ghcr.io", "r")) == ("file", "f")
    assert pair(Keyring(bound, tmp_path).find("quay.io", "r")) == ("env", "e")
    token = Keyring({"NIX_SEED_REGISTRY_TOKEN": "t"}).find("ghcr.io", "r")
    assert token is not None
    assert token.bearer == "t"
    with pytest.raises(InputError, match="set both NIX_SEED_REGISTRY_USERNAME and NIX_SEED"):
        Keyring({"NIX_SEED_REGISTRY_USERNAME": "env"}).find("ghcr.io", "r")


def test_the_jobs_token_is_for_ghcr_only(tmp_path: Path) -> None:
    job = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_TOKEN": "ghs_x",
        "GITHUB_ACTOR": "octocat",
    }
    for other in ("https://ghe.example.com", "https://codeberg.org", "https://github.com.evil", ""):
        foreign = job | {"GITHUB_SERVER_URL": other}
        assert Keyring(foreign, tmp_path).find("ghcr.io", "o/r") is None
    assert pair(Keyring(job, tmp_path).find("ghcr.io", "o/r")) == ("octocat", "ghs_x")
    assert Keyring(job, tmp_path).find("quay.io", "o/r") is None
    assert Keyring({"GITHUB_TOKEN": "ghs_x"}, tmp_path).find("ghcr.io", "o/r") is None


def test_what_is_given_wins(tmp_path: Path) -> None:
    docker(tmp_path, {"auths": {"ghcr.io": entry("file", "f")}})
    given = Credential("--username", "me", "pw")
    assert Keyring({}, tmp_path, given).find("ghcr.io", "o/r") is given
