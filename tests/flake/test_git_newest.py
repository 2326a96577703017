"""Which commits of the default branch are the newest: asked of a real remote, by real Git."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from nix_seed.flake.checkout import Login, newest_commits, parents_of
from support.web import answering


def git(directory: Path, *arguments: str) -> str:
    who = ("-c", "user.name=T", "-c", "user.email=t@localhost")
    command = ["git", "-C", str(directory), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def add(directory: Path, name: str) -> str:
    git(directory, "commit", "-q", "--allow-empty", "-m", name)
    return git(directory, "rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    directory = tmp_path / "origin"
    git(tmp_path, "init", "-q", "-b", "trunk", str(directory))
    return directory


def test_the_newest_first_and_of_merges_the_merge(origin: Path, tmp_path: Path) -> None:
    one = add(origin, "one")
    git(origin, "checkout", "-q", "-b", "side")
    add(origin, "aside")
    git(origin, "checkout", "-q", "trunk")
    two = add(origin, "two")
    git(origin, "merge", "-q", "--no-ff", "-m", "three", "side")
    three = git(origin, "rev-parse", "HEAD")
    checkout = tmp_path / "checkout"
    clone = ["git", "clone", "-q", "--depth", "1", f"file://{origin}", str(checkout)]
    subprocess.run(clone, check=True)
    assert newest_commits(checkout, 64) == (three, two, one)
    assert newest_commits(checkout, 2) == (three, two)
    assert git(checkout, "rev-list", "--count", "HEAD") == "1", "the checkout is as it was"
    assert not (checkout / ".git/FETCH_HEAD").exists()


def test_what_nobody_answers(tmp_path: Path, origin: Path) -> None:
    assert newest_commits(origin, 2) is None, "no remote"
    git(origin, "remote", "add", "origin", str(tmp_path / "absent"))
    assert newest_commits(origin, 2) is None
    assert newest_commits(tmp_path / "absent", 2) is None
    add(origin, "one")
    assert newest_commits(tmp_path, 2, url=str(origin)) is not None, "another name for it"


@contextmanager
def recording() -> Iterator[tuple[str, list[str | None]]]:
    """A server that lets nobody in; yield its address, and what it was told of who asks."""
    told: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(self.headers.get("Authorization"))
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with answering(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}", told


def test_the_token_goes_to_its_forge_and_nowhere_else(origin: Path) -> None:
    with recording() as (forge, seen), recording() as (other, unseen):
        login = Login(forge, 's"ecret\\')
        git(origin, "remote", "add", "origin", f"{forge}/owner/project")
        assert newest_commits(origin, 2, login=login) is None
        assert newest_commits(origin, 2, url=f"{other}/owner/project", login=login) is None
    basic = base64.b64encode(b'x-access-token:s"ecret\\').decode()
    assert set(seen) == {f"basic {basic}"}
    assert set(unseen) == {None}
    assert 's"ecret' not in repr(login)


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_the_commit_checked_out_and_its_parents(tmp_path: Path, kind: str) -> None:
    """By one call of Git, also of a merge, and where another commit stands in for one."""
    assert parents_of(tmp_path) == ()
    git(tmp_path, "init", "-q", "-b", "trunk", f"--object-format={kind}")
    assert parents_of(tmp_path) == ()
    first = add(tmp_path, "one\n\nparent of none")
    assert parents_of(tmp_path) == (first,)
    git(tmp_path, "checkout", "-q", "-b", "side")
    aside = add(tmp_path, "aside")
    git(tmp_path, "checkout", "-q", "trunk")
    second = add(tmp_path, "two")
    git(tmp_path, "merge", "-q", "--no-ff", "-m", "merged", "side")
    merge = git(tmp_path, "rev-parse", "HEAD")
    assert parents_of(tmp_path) == (merge, second, aside)
    git(tmp_path, "replace", merge, first)
    assert parents_of(tmp_path) == (merge, second, aside)
