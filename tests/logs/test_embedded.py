"""The embedded log: appended to by many processes at once, and killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.tlog.entry import HashedRekord
from nix_seed.formats.tlog.merkle import build_root, check_consistency, leaf_hash, read_from_leaves
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.log import DirectorySource, TileReader, check_log
from nix_seed.logs.rules.entry import logged_signature
from support.logs import Signing, cheap_body
from support.programs import first_line

APPENDER = """
import sys
from pathlib import Path
from nix_seed.logs.embedded import EmbeddedLog
log = EmbeddedLog.open(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    done = log.append_bodies([b"entry %d" % number])[0]
    print(number, done.entry.index, flush=True)
"""


def reader_of(log: EmbeddedLog) -> TileReader:
    """A reader that knows no more than the key and the published files."""
    return TileReader(log.trusted, DirectorySource(log.directory / "public"))


def append_elsewhere(directory: Path, start: int, end: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDER, str(directory), str(start), str(end)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_entry_is_logged_once_and_proved(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    envelope, verifier = Signing().sign(b"payload")
    logged = logged_signature(envelope, verifier)
    entry = log.append(envelope, verifier)
    assert log.verify(entry, logged).proved
    assert entry == log.append(envelope, verifier)
    assert log.checkpoint().head.size == 1
    assert list(log.lookup(logged.pae_digest)) == [entry]
    assert list(log.lookup(b"\0" * 32)) == []


def test_every_size_is_the_tree_it_must_be(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    bodies = [cheap_body(i) for i in range(530)]
    heads = [log.checkpoint().head]
    rng = random.Random(5)
    at = 0
    while at < len(bodies):
        step = rng.choice([1, 1, 2, 3, 60])
        log.append_bodies(bodies[at : at + step])
        at = min(len(bodies), at + step)
        heads.append(log.checkpoint().head)
    read = read_from_leaves([leaf_hash(body) for body in bodies])
    assert heads == [build_root(head.size, read) for head in heads]
    reader = reader_of(log)
    for old in heads[::7]:
        check_consistency(reader.consistency(old.size, heads[-1].size), old, heads[-1])
    assert [entry.body for entry in reader.entries(log.checkpoint())] == bodies
    report = check_log(reader)
    assert (report.signed.head, report.kinds) == (heads[-1], (("hashedrekord 0.0.2", 530),))


def test_old_checkpoints_are_served_after_their_partial_tiles_are_gone(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    log.append_bodies([cheap_body(i) for i in range(100)])
    old = log.checkpoint()
    log.append_bodies([cheap_body(i) for i in range(100, 300)])
    assert not (log.directory / "public/tile/0/000.p").exists()
    assert not (log.directory / "public/tile/entries/000.p").exists()
    assert [e.body for e in log.entries(old, 90)] == [cheap_body(i) for i in range(90, 100)]


def test_duplicates_within_one_batch(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    done = log.append_bodies([cheap_body(1), cheap_body(2), cheap_body(1)])
    assert [each.entry.index for each in done] == [0, 1, 0]
    again = log.append_bodies([cheap_body(3), cheap_body(2)])
    assert [(each.entry.index, each.duplicate) for each in again] == [(2, False), (1, True)]


def test_many_processes_append_to_one_log(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    log = EmbeddedLog.create(directory)
    running = [append_elsewhere(directory, k * 50, k * 50 + 50) for k in range(3)]
    # And this process too, so that its memory of the leaves has gaps to fill.
    here = [log.append_bodies([b"here %d" % i])[0].entry.index for i in range(20)]
    printed = [process.communicate(timeout=120)[0] for process in running]
    lines = [line.split() for text in printed for line in text.splitlines()]
    placed = {int(index): b"entry %d" % int(number) for number, index in lines}
    placed |= {index: b"here %d" % i for i, index in enumerate(here)}
    assert sorted(placed) == list(range(170))
    entries = [entry.body for entry in reader_of(log).entries(log.checkpoint())]
    assert entries == [placed[i] for i in range(170)]


@pytest.mark.fsync
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Whatever was answered is in the log, every checkpoint grows from the last, all is whole."""
    directory = tmp_path / "log"
    log = EmbeddedLog.create(directory)
    rng = random.Random(7)
    head, at, promised = log.checkpoint().head, 0, dict[int, int]()
    for _ in range(12):
        process = append_elsewhere(directory, at, at + 10_000)
        first = first_line(process)
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.communicate(timeout=60)[0].splitlines(keepends=True)]
        for line in lines:
            if line.endswith("\n"):
                number, index = map(int, line.split())
                promised[number] = index
        signed = log.checkpoint()
        check_consistency(log.consistency(head.size, signed.head.size), head, signed.head)
        head, at = signed.head, max(promised) + 2
    assert check_log(reader_of(log)).signed.head == head
    entries = [entry.body for entry in log.entries(log.checkpoint())]
    assert len(promised) >= 12
    for number, index in promised.items():
        assert entries[index] == b"entry %d" % number
    log.append_bodies([b"and on"])
    assert list((directory / "public").rglob("*.tmp")) == []


def test_the_signing_key_is_not_among_what_is_served(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log")
    key = tmp_path / "log/private/key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert sorted(os.listdir(tmp_path / "log/public")) == ["checkpoint"]
    assert (tmp_path / "log/log.vkey").read_text() == f"{log.trusted.key}\n"
    assert log.trusted.origin.startswith("nix-seed-log/")


def test_a_log_keeps_its_name_and_key(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log", "log.test/a")
    assert EmbeddedLog.create(tmp_path / "log").trusted == log.trusted
    with pytest.raises(InputError, match=r"^the log in .*/log is called log.test/a, not b$"):
        EmbeddedLog.create(tmp_path / "log", "b")
    with pytest.raises(InputError, match=r"^there is no log in ") as caught:
        EmbeddedLog.open(tmp_path / "nothing")
    assert caught.value.hint == f"'nix-seed log serve {tmp_path}/nothing' makes one"
    other = EmbeddedLog.create(tmp_path / "other", "log.test/a")
    stolen = (other.directory / "private/key.pem").read_bytes()
    (log.directory / "private/key.pem").write_bytes(stolen)
    with pytest.raises(InputError, match=r"key.pem is not the key of the log log.test/a$"):
        EmbeddedLog.open(tmp_path / "log")
    (log.directory / "log.vkey").unlink()
    with pytest.raises(InputError, match="holds a log whose key is missing"):
        EmbeddedLog.create(tmp_path / "log")


def test_a_log_whose_making_was_interrupted_is_made(tmp_path: Path) -> None:
    (tmp_path / "log/private").mkdir(parents=True)
    (tmp_path / "log/private/key.pem").write_text("half")
    assert EmbeddedLog.create(tmp_path / "log").checkpoint().head.size == 0


@pytest.fixture
def long(tmp_path: Path) -> EmbeddedLog:
    log = EmbeddedLog.create(tmp_path / "log", "log.test/x")
    log.append_bodies([cheap_body(i) for i in range(300)])
    return log


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("tile/entries/000", "does not hold what it signed: its 300 entries have another root"),
        ("tile/entries/001.p/44", "does not hold what it signed: its 300 entries have another"),
        ("tile/0/000", r"^tile/0/000 of the log log.test/x does not hold its entries' hashes$"),
        ("tile/0/001.p/44", r"^tile/0/001.p/44 of the log log.test/x does not hold its entries'"),
        ("tile/1/000.p/1", r"^tile/1/000.p/1 of the log log.test/x does not hold its entries' h"),
    ],
)
def test_check_finds_any_changed_byte(long: EmbeddedLog, file: str, said: str) -> None:
    path = long.directory / "public" / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckedFalse, match=said):
        check_log(reader_of(long))


def test_check_tells_missing_from_false(long: EmbeddedLog) -> None:
    (long.directory / "public/tile/0/000").unlink()
    with pytest.raises(CouldNotCheck, match=r"has no tile/0/000$"):
        check_log(reader_of(long))
    (long.directory / "public/checkpoint").unlink()
    with pytest.raises(CouldNotCheck, match=r"it has no checkpoint$"):
        check_log(reader_of(long))


def test_entries_that_are_changed_are_never_yielded(long: EmbeddedLog) -> None:
    path = long.directory / "public/tile/entries/000"
    data = path.read_bytes().replace(cheap_body(7), cheap_body(8)[:-2] + b" }")
    path.write_bytes(data)
    reader = reader_of(long)
    assert reader.entry(6, reader.checkpoint()).body == cheap_body(6)
    with pytest.raises(CheckedFalse, match=r"^the log log.test/x lies about entry 7: "):
        reader.entry(7, reader.checkpoint())


def test_appending_to_a_log_that_lost_tiles_is_refused(long: EmbeddedLog) -> None:
    checkpoint = long.checkpoint().dump()
    (long.directory / "public/tile/0/001.p/44").unlink()
    fresh = EmbeddedLog.open(long.directory)
    with pytest.raises(CouldNotCheck, match=r"has no tile/0/001.p/44$"):
        fresh.append_bodies([b"more"])
    assert long.checkpoint().dump() == checkpoint


def test_body_of_an_envelope_is_what_is_logged(tmp_path: Path) -> None:
    signing = Signing()
    logged = signing.logged(b"payload")
    body = HashedRekord.of(logged)
    assert body.differs(logged) is None
    log = EmbeddedLog.create(tmp_path / "log")
    assert log.append_bodies([body.dump()])[0].entry.kind == "hashedrekord"
