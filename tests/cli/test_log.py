"""``nix-seed log`` as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.rekor import LogHttp, RekorV2
from nix_seed.logs.rules.entry import TrustedLog
from support.logs import IMPATIENT, Signing

COMMAND = [sys.executable, "-m", "nix_seed", "log"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"NIX_SEED_STATE": str(tmp_path / "state")}


def run(environ: dict[str, str], *args: str, code: int = 0) -> str:
    done = subprocess.run(
        [*COMMAND, *args], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@contextmanager
def serving(directory: Path, *args: str) -> Iterator[tuple[str, str]]:
    """Serve; give the address and the verifier key that the command printed."""
    command = [*COMMAND, "serve", str(directory), "--port", "0", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = dict(process.stdout.readline().rstrip("\n").split(None, 1) for _ in range(4))
        yield printed["serving:"], printed["key:"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def client(url: str, key: str) -> RekorV2:
    note_key = NoteKey.parse(key)
    trusted = TrustedLog("log", "tiles", note_key.name, note_key)
    return RekorV2(trusted, url, http=LogHttp(url, patience=IMPATIENT))


def test_a_policy_brings_its_log(tmp_path: Path, environ: dict[str, str]) -> None:
    """``policy init --log`` makes it, and leaves one that is there as it is."""
    program = COMMAND[:-1]
    subprocess.run([*program, "key", "generate", "me.key"], cwd=tmp_path, env=environ, check=True)
    command = [*program, "policy", "init", "--key", "me=me.pub", "--log", "log"]
    for name in ("one.toml", "two.toml"):
        subprocess.run([*command, name], cwd=tmp_path, env=environ, check=True)
    key = (tmp_path / "log/log.vkey").read_text().strip()
    assert all(key in (tmp_path / name).read_text() for name in ("one.toml", "two.toml"))
    run(environ, "check", str(tmp_path / "log"))
    (tmp_path / "other").mkdir()
    refused = [*command[:-1], "other", "three.toml"]
    done = subprocess.run(refused, cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert done.returncode == 3
    assert b"reading other/log.vkey failed" in done.stderr


def test_serve_show_check(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = tmp_path / "log"
    with serving(directory, "--origin", "log.test/cli", "--quiet") as (url, key):
        log = client(url, key)
        for number in range(3):
            log.append(*Signing().sign(b"%d" % number))
        assert "log.test/cli: whole, 3 entries" in run(environ, "check", url, "--key", key)
        shown = run(environ, "show", f"{url}/api/v2", "--key", key, "--last", "1")
        assert shown.startswith("log.test/cli\n3\n")
        assert shown.splitlines()[-1].startswith("     2  hashedrekord 0.0.2  leaf ")
    checked = run(environ, "check", str(directory))
    assert checked.endswith("since the last check: same\n")
    entry = json.loads(run(environ, "show", str(directory), "1"))
    assert entry["logIndex"] == "1"
    value = json.loads(run(environ, "check", str(directory), "--json", "--no-remember"))
    assert (value["size"], value["history"]) == (3, "first seen")
    shown = json.loads(run(environ, "show", str(directory), "--json"))
    assert (shown["origin"], len(shown["entries"])) == ("log.test/cli", 3)


def test_a_log_that_was_rolled_back(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = tmp_path / "log"
    with serving(directory, "--origin", "log.test/cli") as (url, key):
        client(url, key).append(*Signing().sign(b"one"))
        before = (directory / "public/checkpoint").read_bytes()
        client(url, key).append(*Signing().sign(b"two"))
    run(environ, "check", str(directory))
    (directory / "public/checkpoint").write_bytes(before)
    said = run(environ, "check", str(directory), code=1)
    assert said.startswith(
        "error: the log log.test/cli rolled back: 2 leaves were seen before, and now 1\n"
    )
    bundle = directory / "public/tile/entries/000.p/1"
    bundle.write_bytes(bundle.read_bytes()[:-1] + b" ")
    said = run(environ, "check", str(directory), "--no-remember", code=1)
    assert "does not hold what it signed" in said


def test_what_is_wrong_is_said(tmp_path: Path, environ: dict[str, str]) -> None:
    said = run(environ, "check", str(tmp_path / "no"), code=2)
    assert "is neither a directory nor an address" in said
    assert "there is no log.vkey in" in run(environ, "show", str(tmp_path), code=2)
    said = run(environ, "check", "http://127.0.0.1:9", code=2)
    assert "takes its verifier key" in said
    said = run(environ, "check", str(tmp_path), "--key", "a+b+c", code=2)
    assert "is no key of a log or witness" in said
