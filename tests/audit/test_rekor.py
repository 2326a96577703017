"""Audits of ledgers that a real Rekor holds: one that can be replayed, and one that cannot.

Of Rekor v1 only the index can be asked, by commit; it is asked about every commit, each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.formats.tlog.note import NoteKey
from nix_seed.logs.open import open_history
from nix_seed.logs.rekor import RekorV1
from nix_seed.logs.rules.entry import TrustedLog
from support.audits import Ledger, commit
from support.real_logs import logged_by, published
from support.rekor import rekor_v1, rekor_v2

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]


@contextmanager
def rekor(kind: str, root: Path) -> Iterator[tuple[NoteKey, str]]:
    if kind == "rekor-v1":
        with rekor_v1(root) as (url, key):
            yield key, url
    else:
        with rekor_v2(root) as log, published(log.url, log.storage) as url:
            yield log.trusted.key, url


@pytest.mark.parametrize("kind", ["rekor-v1", "rekor-v2"])
def test_what_a_rekor_holds_and_nobody_shows(kind: str, tmp_path: Path) -> None:
    with rekor(kind, tmp_path / "rekor") as (key, url):
        ledger = Ledger(tmp_path / "world", releases=0)
        logged_by(ledger, kind, key.name, key, url)
        for _ in range(2):
            ledger.release()
        clean = ledger.audit()
        assert (clean.code, clean.found()) == (0, [])
        before = settled(kind, key, url)
        # A second root of a commit that was audited, signed, logged, and shown to victims alone.
        ledger.forge(1, images=[ledger.other, ledger.arm], listed=False, documents=False)
        if kind == "rekor-v1":
            indexed(key, url, before + 1)
        for again in ((), ("--whole",)):
            found = ledger.audit(*again)
            assert (found.code, found.found("alarm")) == (1, [("withheld", "alarm")])
            assert "is signed by rita" in found.words("withheld")[0]


@pytest.mark.parametrize("kind", ["rekor-v1", "rekor-v2"])
def test_a_dissent_that_a_rekor_holds_and_nobody_shows(kind: str, tmp_path: Path) -> None:
    """Rekor v1 tells the commit by its index, so that is an alarm; hashes do not tell."""
    with rekor(kind, tmp_path / "rekor") as (key, url):
        ledger = Ledger(tmp_path / "world", releases=0)
        logged_by(ledger, kind, key.name, key, url)
        for _ in range(2):
            ledger.release()
        assert ledger.audit().found() == []
        before = settled(kind, key, url)
        source = replace(ledger.says("carol").source, commit=commit(1))
        ledger.bundle(ledger.sign(ledger.says("carol", ledger.other, source=source)))
        if kind == "rekor-v1":
            indexed(key, url, before + 1)
        for again in ((), ("--whole",)):
            found = ledger.audit(*again)
            told = [each for each in found.words("withheld") if "carol" in each]
            assert len(told) == 1
            if kind == "rekor-v1":
                assert (found.code, found.found()) == (1, [("withheld", "alarm")])
                assert f"about {commit(1)}" in told[0]
            else:
                assert (found.code, found.found()) == (0, [])
                break  # what was kept goes on from here


def settled(kind: str, key: NoteKey, url: str) -> int:
    """How many entries Rekor v1 has for the first commit, once its index has all of its log."""
    if kind != "rekor-v1":
        return 0
    size = open_v1(key, url).checkpoint().head.size
    wait_until(lambda: entries(key, url, 1) + entries(key, url, 2) == size)
    return entries(key, url, 1)


def indexed(key: NoteKey, url: str, number: int) -> None:
    wait_until(lambda: entries(key, url, 1) >= number)


def entries(key: NoteKey, url: str, release: int) -> int:
    """How many entries the index has for the commit of that *release*."""
    return len(list(open_v1(key, url).lookup(commit(release).key.raw)))


def open_v1(key: NoteKey, url: str) -> RekorV1:
    log = open_history(TrustedLog("rekor", "rekor-v1", key.name, key), url)
    assert isinstance(log, RekorV1)
    return log


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for the index, which Rekor writes only after it has answered."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
