"""Logs are held to what they showed; that one grew while it was asked is no lie of its."""

from __future__ import annotations

from pathlib import Path

from nix_seed.core.verdict import Fate
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.logs.log import CheckpointState
from nix_seed.trust.rules.bundle import Ground, Verdict
from nix_seed.trust.rules.claims import Finding
from nix_seed.trust.rules.policy import LogFindings
from nix_seed.trust.watch_logs import LogWatch
from support.logs import cheap_body


def entry_of(log: EmbeddedLog) -> Finding:
    """An attestation that brings the log's newest checkpoint."""
    brought = LogFindings(checkpoints=((log.trusted.id, log.checkpoint()),))
    return Finding("a bundle", "a place", Verdict(Fate.FALSE, Ground.LOG, "is not judged"), brought)


def watch(log: EmbeddedLog, state: Path) -> LogWatch:
    return LogWatch(
        CheckpointState(state), [(log.trusted, "somewhere")], lambda trusted, place: log
    )


def test_a_log_that_grew_since_it_was_asked_is_asked_again(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log", "log.test/x")
    log.append_bodies([cheap_body(0)])
    watching = watch(log, tmp_path / "state")
    assert watching.judge([entry_of(log)]) == {}
    log.append_bodies([cheap_body(1)])  # as another promoter does, at that moment
    assert watching.judge([entry_of(log)]) == {}


def test_one_that_knows_no_more_what_it_gave_is_a_liar(tmp_path: Path) -> None:
    log = EmbeddedLog.create(tmp_path / "log", "log.test/x")
    log.append_bodies([cheap_body(0)])
    older = log.checkpoint()
    log.append_bodies([cheap_body(1)])
    brought = entry_of(log)

    class Forgetful:
        consistency = log.consistency

        def checkpoint(self) -> object:
            return older

    watching = LogWatch(
        CheckpointState(tmp_path / "state"),
        [(log.trusted, "somewhere")],
        lambda trusted, place: Forgetful(),  # type: ignore[arg-type,return-value]
    )
    (trouble,) = watching.judge([brought]).values()
    assert trouble.fate is Fate.FALSE
    assert "rolled back: 2 leaves were seen before, and now 1" in trouble.reason
