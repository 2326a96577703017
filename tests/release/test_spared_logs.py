"""Promoting while one of two logs is gone, answers nonsense, or lies."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.release.load import load_policy
from nix_seed.trust.sign import open_logs
from support.audits import Ledger
from support.trust import COMMIT, OTHER_COMMIT
from support.web import Reply, lying


def with_a_second_log(tmp_path: Path) -> Ledger:
    """A world that logs to the second of two logs, of which one must hold everything."""
    world = Ledger.fresh(tmp_path, releases=0)
    world.quorum["logs"] = "1"
    world.log = world.add_log("second")
    world.attest_all()
    return world


def test_a_log_in_a_directory_that_is_gone_is_spared(tmp_path: Path) -> None:
    world = with_a_second_log(tmp_path)
    world.attest_all(commit=OTHER_COMMIT)
    shutil.rmtree(world.root / "log")
    ended = world.promote_by_command(world.repository)
    assert ended.code == 0, ended.printed
    assert world.verify(str(COMMIT), "--from", world.repository).code == 0
    shutil.rmtree(world.root / "second")
    with pytest.raises(CouldNotCheck, match="could not be checked"):
        world.promote(commit=OTHER_COMMIT)
    loaded = load_policy(world.write_policy(), datetime.now(UTC))
    with pytest.raises(CouldNotCheck, match="there is no log in "):
        open_logs(loaded.policy, loaded.directory)


def test_a_log_that_answers_nonsense_is_spared(tmp_path: Path) -> None:
    world = with_a_second_log(tmp_path)
    with lying(lambda *_: (200, {}, b'{"maintenance": true}')) as url:
        world.logs[0]["url"] = f'"{url}"'
        ended = world.promote_by_command(world.repository)
        assert ended.code == 0, ended.printed


def test_a_log_that_gives_another_entry_lies(tmp_path: Path) -> None:
    world = with_a_second_log(tmp_path)
    first = EmbeddedLog.open(world.root / "log")
    signed = world.keys["mallory"].sign(PAYLOAD_TYPE, b"another")
    other = first.append(signed.envelope, signed.verifier)
    checkpoint = (world.root / "log/public/checkpoint").read_bytes()

    def answer(_: str, path: str) -> Reply:
        text = checkpoint if path.endswith("/checkpoint") else json.dumps(other).encode()
        return 200, {}, text

    with lying(answer) as url:
        world.logs[0]["url"] = f'"{url}"'
        ended = world.promote_by_command(world.repository)
        assert ended.code == 1, ended.printed
        assert "the log log answered falsely" in ended.printed


def test_a_directory_that_holds_another_log_is_wrong_input(tmp_path: Path) -> None:
    world = with_a_second_log(tmp_path)
    world.logs[0]["url"] = '"second"'
    with pytest.raises(InputError, match=r"is second\.example, not log\.example"):
        world.promote()
