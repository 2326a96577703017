"""What was seen of a log is kept against it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.tlog.merkle import TreeHead, build_root, leaf_hash, read_from_leaves
from nix_seed.formats.tlog.note import Checkpoint, SignedCheckpoint
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.log import CheckpointState
from nix_seed.logs.rules.entry import History, check_history
from support.logs import cheap_body


class Twins:
    """A log and its evil twin: one key, two histories after the first five entries."""

    def __init__(self, directory: Path) -> None:
        self.good = EmbeddedLog.create(directory / "good", "log.test/x")
        self.good.append_bodies([cheap_body(i) for i in range(5)])
        shutil.copytree(directory / "good", directory / "evil")
        self.evil = EmbeddedLog.open(directory / "evil")
        self.state = CheckpointState(directory / "state")

    def see(self, log: EmbeddedLog, *, newest: bool = True) -> History | None:
        result = self.state.advance(log.trusted, log.checkpoint(), log.consistency, newest=newest)
        return result.history if result else None


@pytest.fixture
def twins(tmp_path: Path) -> Twins:
    return Twins(tmp_path)


def test_a_log_that_grows_is_followed(twins: Twins) -> None:
    log = twins.good
    assert twins.see(log) is None
    assert twins.see(log) is History.SAME
    old = log.checkpoint()
    log.append_bodies([cheap_body(i) for i in range(5, 9)])
    assert twins.see(log) is History.GREW
    seen = twins.state.seen(log.trusted)
    assert seen == log.checkpoint()
    result = twins.state.advance(log.trusted, old, log.consistency, newest=False)
    assert result is not None
    assert (result.history, result.reason) == (
        History.OLDER, "9 leaves were seen before, and now 5",
    )  # fmt: skip
    assert twins.state.seen(log.trusted) == seen


def test_a_rollback_is_named(twins: Twins) -> None:
    twins.good.append_bodies([cheap_body(7)])
    twins.see(twins.good)
    with pytest.raises(CheckedFalse) as caught:
        twins.state.advance(twins.evil.trusted, twins.evil.checkpoint(), twins.good.consistency)
    assert caught.value.message == (
        "the log log.test/x rolled back: 6 leaves were seen before, and now 5"
    )
    assert caught.value.detail == (
        f"seen before:\n{twins.good.checkpoint().checkpoint}"
        f"now:\n{twins.evil.checkpoint().checkpoint}"
    )
    assert twins.state.seen(twins.good.trusted) == twins.good.checkpoint()


class Slow:
    """A log whose answer is on its way while *meanwhile* is done."""

    def __init__(self, log: EmbeddedLog, meanwhile: Callable[[], object]) -> None:
        self.consistency = log.consistency
        self._log, self._meanwhile = log, meanwhile

    def checkpoint(self) -> SignedCheckpoint:
        signed = self._log.checkpoint()
        self._meanwhile()
        return signed


def test_what_another_process_saw_meanwhile_is_no_rollback(twins: Twins) -> None:
    log = twins.good
    twins.see(log)
    asked = log.checkpoint()

    def grow() -> None:
        log.append_bodies([cheap_body(7)])
        twins.see(log)

    signed, result = twins.state.ask(log.trusted, Slow(log, grow))
    assert (signed, result and result.history) == (asked, History.OLDER)
    assert twins.state.seen(log.trusted) == log.checkpoint()
    with pytest.raises(CheckedFalse, match=r"rolled back: 6 leaves were seen before, and now 5"):
        twins.state.ask(twins.evil.trusted, twins.evil)


def test_nor_does_that_hide_a_fork(twins: Twins) -> None:
    twins.see(twins.good)
    twins.evil.append_bodies([cheap_body(8)])

    def grow() -> None:
        twins.good.append_bodies([cheap_body(7), cheap_body(9)])
        twins.see(twins.good)

    asked = Slow(twins.evil, grow)
    asked.consistency = twins.good.consistency
    with pytest.raises(CheckedFalse, match=r"forked: 7 leaves were seen before, and now 6, but"):
        twins.state.ask(twins.evil.trusted, asked)


def test_a_split_view_is_named(twins: Twins) -> None:
    twins.good.append_bodies([cheap_body(7)])
    twins.evil.append_bodies([cheap_body(8)])
    twins.see(twins.good)
    for newest in (True, False):
        with pytest.raises(
            CheckedFalse, match=r"^the log log.test/x shows a split view: it signed "
        ):
            twins.see(twins.evil, newest=newest)


def test_a_fork_is_named(twins: Twins) -> None:
    twins.good.append_bodies([cheap_body(7)])
    twins.evil.append_bodies([cheap_body(8), cheap_body(9)])
    twins.see(twins.good)
    with pytest.raises(CheckedFalse) as caught:
        twins.see(twins.evil)
    assert caught.value.message == (
        "the log log.test/x forked: 6 leaves were seen before, and now 7, but the consistency "
        "proof from size 6 to 7 does not lead to the older root"
    )
    assert twins.state.seen(twins.good.trusted) == twins.good.checkpoint()


def test_a_fork_shows_by_an_old_entry_too(twins: Twins) -> None:
    twins.evil.append_bodies([cheap_body(8)])
    old = twins.evil.checkpoint()
    twins.good.append_bodies([cheap_body(7), cheap_body(9)])
    twins.see(twins.good)
    with pytest.raises(CheckedFalse, match=r"forked: 7 leaves were seen before, and now 6, but"):
        twins.state.advance(
            old_log := twins.good.trusted, old, twins.good.consistency, newest=False
        )
    assert twins.state.seen(old_log) == twins.good.checkpoint()


def test_a_log_that_gives_no_proof_is_not_called_a_liar(twins: Twins) -> None:
    twins.see(twins.good)
    twins.good.append_bodies([cheap_body(7)])

    def down(old: int, new: int) -> tuple[bytes, ...]:
        raise CouldNotCheck("the log is down")

    with pytest.raises(CouldNotCheck, match=r"^the log is down$"):
        twins.state.advance(twins.good.trusted, twins.good.checkpoint(), down)
    assert twins.see(twins.good) is History.GREW


def test_logs_are_kept_apart_by_key(tmp_path: Path) -> None:
    state = CheckpointState(tmp_path / "state")
    for name in ("one", "two"):
        log = EmbeddedLog.create(tmp_path / name, "log.test/same")
        log.append_bodies([name.encode()])
        assert state.advance(log.trusted, log.checkpoint(), log.consistency) is None


def test_a_changed_memory_is_not_believed(twins: Twins) -> None:
    twins.see(twins.good)
    (path,) = (Path(twins.state._directory)).glob("*.checkpoint")
    path.write_bytes(path.read_bytes().replace(b"\n5\n", b"\n4\n"))
    with pytest.raises(CheckedFalse, match=r"the signature of log.test/x under the note is forged"):
        twins.see(twins.good)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"is not a signed note"):
        twins.see(twins.good)


LEAVES = [leaf_hash(b"%d" % i) for i in range(9)]
READ = read_from_leaves(LEAVES)


def checkpoint(size: int) -> Checkpoint:
    return Checkpoint("x", build_root(size, READ))


@pytest.mark.parametrize("proof", [(), (LEAVES[0],), (LEAVES[0],) * 9])
def test_history_without_its_proof_is_a_fork(proof: tuple[bytes, ...]) -> None:
    with pytest.raises(CheckedFalse, match=r"^the log x forked: 3 leaves were seen before, and"):
        check_history("x", checkpoint(3), checkpoint(9), proof, newest=True)


def test_growing_from_nothing_needs_no_proof() -> None:
    assert check_history("x", checkpoint(0), checkpoint(9), (), newest=True).history is History.GREW
    empty = Checkpoint("x", TreeHead(0, b"\0" * 32))
    with pytest.raises(CheckedFalse, match=r"the root of an empty tree is not the hash of nothing"):
        check_history("x", empty, checkpoint(9), (), newest=True)
    with pytest.raises(CheckedFalse, match=r"rolled back"):
        check_history("x", checkpoint(9), checkpoint(0), (), newest=True)
