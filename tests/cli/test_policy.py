"""``nix-seed policy`` and ``nix-seed key`` as a person runs them: a policy from first to second."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nix_seed.cli.main import cli
from nix_seed.core.errors import InputError
from nix_seed.release.load import load_policy_of_then


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def done(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str | Path) -> str:
    """Run what must be refused as wrong input; return the message and what to do."""
    result = run(*arguments)
    assert isinstance(result.exception, InputError), result.output
    assert result.exception.hint, "it says what failed, and not what to do next"
    return f"{result.exception.message}\n{result.exception.hint}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with four keys, a log and a policy of alice, bob and promoter rita."""
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob", "carol", "rita"):
        done("key", "generate", f"{name}.key")
    keys = ("--key", "alice=alice.pub", "--key", "bob=bob.pub", "--promoter", "rita=rita.pub")
    (tmp_path / "policies").mkdir()
    done("policy", "init", "policies/trust.toml", "--log", "log", *keys)
    monkeypatch.chdir(tmp_path / "policies")
    return tmp_path / "policies"


def test_init_writes_no_path_of_this_machine(place: Path) -> None:
    text = (place / "trust.toml").read_text()
    assert 'url = "../log"' in text
    assert str(place.parent) not in text
    again = ("policy", "init", "--key", "alice=../alice.pub", "--log", "../new")
    assert "exists already" in refused(*again)
    assert not (place.parent / "new").exists(), "a log was made for a policy that was not written"


def test_from_one_policy_to_the_next(place: Path) -> None:
    said = done("policy", "next", "--revoke", "bob", "--at", "2026-01-31")
    assert "trust-2.toml is written, epoch 2:" in said
    assert "builders: bob: revoked_at: none → 2026-01-31 00:00:00+00:00" in said
    said = done(
        "policy", "add-builder", "carol", "--key", "../carol.pub", "--policy", "trust-2.toml"
    )
    assert "trust-2.toml: builders: carol is new" in said
    assert "2 of 3 builders must agree" in said
    assert run("policy", "diff", "trust.toml", "trust-2.toml").exit_code == 1
    said = done("policy", "sign", "trust.toml", "trust-2.toml", "--key", "../rita.key")
    assert "trust-2.rita.sig: rita signs epoch 2" in said
    signed = ("policy", "diff", "trust.toml", "trust-2.toml", "--signature", "trust-2.rita.sig")
    assert "signed by rita; 1 wanted" in done(*signed)
    old, new = (load_policy_of_then(place / name).policy for name in ("trust.toml", "trust-2.toml"))
    assert list(new.accepts) == [old.digest]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("next", "--revoke", "bob"), "since when can the key have been stolen"),
        (("next", "--at", "now"), "--revoke and --at go together"),
        (("next", "--revoke", "bob", "--at", "tomorrow"), "tomorrow is no time"),
        (("next", "--revoke", "dave", "--at", "now"), "has no builder dave\nit has: alice, bob"),
        (("next", "--log", "log"), "--log log is not of the form ID=VALUE"),
        (("next", "-o", "trust.toml"), "trust.toml exists already"),
        (("next", "absent.toml"), "absent.toml"),
        (("add-builder", "carol"), "it is not said how carol signs"),
        (("add-builder", "bob", "--key", "../carol.pub"), "has a builder bob already"),
        (("add-builder", "carol", "--key", "../nope.pub"), "there is no key"),
        (("sign", "trust.toml", "trust.toml", "--key", "../rita.key"), "are the same file"),
    ],
)
def test_what_is_refused_changes_nothing(
    place: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert words in refused("policy", *arguments)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_who_may_not_sign_the_next_policy_is_told(place: Path) -> None:
    done("policy", "next")
    said = refused("policy", "sign", "trust.toml", "trust-2.toml", "--key", "../alice.key")
    assert "may not sign the next policy: by the old one rita may" in said
    assert not list(place.glob("*.sig"))


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", directory, *arguments], check=True, capture_output=True)


def test_a_key_in_a_git_work_tree(tmp_path: Path) -> None:
    tree = tmp_path / "project"
    (tree / "keys").mkdir(parents=True)
    git(tmp_path, "init", "-q", str(tree))
    said = done("key", "generate", tree / "keys" / "me.key")
    assert f"lies in the Git work tree {tree}" in said
    assert f"echo /keys/me.key >> {tree}/.gitignore" in said
    (tree / ".gitignore").write_text("/keys/me.key\n*.key\n")
    assert "WARNING" not in done("key", "generate", tree / "keys" / "ignored.key")
    git(tree, "check-ignore", "keys/me.key")
    assert "WARNING" not in done("key", "generate", tmp_path / "outside.key")


def test_a_key_where_there_is_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "WARNING" not in done("key", "generate", tmp_path / "me.key")
    assert os.path.exists(tmp_path / "me.pub")
