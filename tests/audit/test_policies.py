"""Ledgers that outlive a policy: who was trusted then, who is now, and which policy is meant."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nix_seed.audit.rules.policies import find_expired
from nix_seed.audit.rules.record import LedgerRecord
from nix_seed.core.digests import Digest
from nix_seed.core.verdict import Severity
from nix_seed.trust.rules.policy import PolicyBook
from nix_seed.trust.rules.policy_file import parse_policy
from support.audits import Ledger, commit
from support.trust import pem


def next_policy(ledger: Ledger, *, accepts: bool = True) -> str:
    """Keep the policy as it is under another name, and begin the next epoch; return the name."""
    old = ledger.root / "trust.1.toml"
    old.write_text(ledger.policy())
    ledger.head["epoch"] = "2"
    if accepts:
        ledger.head["accepts"] = f'["{Digest.of(old.read_bytes())}"]'
    return str(old)


def test_releases_of_an_earlier_policy_are_judged_by_it(ledger: Ledger) -> None:
    old = next_policy(ledger)
    ledger.release()
    found = ledger.audit("--policy-history", old)
    assert (found.code, found.report["findings"]) == (0, [])
    assert [each["epoch"] for each in found.report["records"]] == [1, 1, 1, 2]


def test_without_the_earlier_policy_its_releases_cannot_be_judged(ledger: Ledger) -> None:
    next_policy(ledger)
    found = ledger.audit()
    assert found.code == 3
    assert found.found() == [("policy", "could not check")]
    assert (
        "by which nothing could be judged: name its file with --policy-history"
        in (found.words("policy")[0])
    )


def test_a_policy_that_is_accepted_no_more(ledger: Ledger) -> None:
    old = next_policy(ledger, accepts=False)
    found = ledger.audit("--policy-history", old)
    assert (found.code, found.found()) == (0, [("policy", "warning")])
    assert "which this one accepts no more" in found.words("policy")[0]
    unknown = ledger.audit()
    assert unknown.code == 1
    assert ("policy", "alarm") in unknown.found()


def test_a_builder_revoked_since(ledger: Ledger) -> None:
    """Without a time that logs prove, nothing of a revoked builder counts any more."""
    old = next_policy(ledger)
    ledger.builders["alice"]["revokedAt"] = "2026-01-01T00:00:00Z"
    found = ledger.audit("--policy-history", old)
    assert found.code == 0
    (words,) = found.words("revoked")
    assert words.startswith("the builder alice was revoked at 2026-01-01 00:00 UTC, and vouched")
    assert str(commit(3)) in words
    quorums = found.words("quorum")
    assert len(quorums) == 6
    assert "1 of the 2 builders wanted agree, by the policy in force now" in quorums[0]


def test_a_builder_that_is_none_any_more(ledger: Ledger) -> None:
    old = next_policy(ledger)
    del ledger.builders["alice"]
    found = ledger.audit("--policy-history", old)
    assert found.code == 0
    assert found.words("revoked")[0].startswith("the builder alice is one no more, and vouched")


def test_a_promoter_that_is_none_any_more(ledger: Ledger) -> None:
    old = next_policy(ledger)
    del ledger.promoters["rita"]
    found = ledger.audit("--policy-history", old)
    assert found.code == 0
    (words,) = found.words("revoked")
    assert words.startswith("the promoter rita (key sha256:")
    assert "is one no more, and signed what was released as" in words


def test_a_promoter_outside_the_policy_of_that_time(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=0)
    del ledger.promoters["sam"]
    ledger.release()
    old = next_policy(ledger)
    policy = ledger.said(1).policy
    ledger.promoters["sam"] = {"key": pem(ledger.keys["sam"])}
    ledger.forge(2, "sam", previous=(ledger.digest(1),), policy=policy, epoch=1)
    found = ledger.audit("--policy-history", old)
    assert found.code == 1
    assert ("promoter", "alarm") in found.found()
    assert f"sam signed a record under the policy {policy}, by which sam is no promoter" in (
        found.words("promoter")
    )


def test_a_log_that_moved(ledger: Ledger) -> None:
    """The next policy knows another log; what lies in the first one is read there still."""
    old = next_policy(ledger)
    log = ledger.add_log("second")
    ledger.logs = ledger.logs[1:]
    ledger.log = log
    ledger.release()
    found = ledger.audit("--policy-history", old)
    assert (found.code, found.found("alarm")) == (0, []), found.report["findings"]
    assert [(each["id"], each["read"]) for each in found.report["logs"]] == [
        ("second", 5),
        ("log", 15),
    ]


def test_two_of_two_promoters_and_one_who_signs_something_else(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=0)
    ledger.quorum["promoters"] = "2"
    ledger.attest_all(commit=commit(1))
    ledger.promote("rita", commit=commit(1))
    pending = ledger.audit()
    assert (pending.code, pending.found("notice")) == (0, [("pending", "notice")])
    assert "1 of the 2 promoters that must sign the record did" in pending.words("pending")[0]
    ledger.done.append(ledger.promote("sam", commit=commit(1)))
    assert ledger.audit().code == 0
    ledger.forge(1, "sam", images=[ledger.other, ledger.arm], previous=(ledger.digest(1),))
    found = ledger.audit()
    assert (found.code, found.found("alarm")) == (1, [("contradiction", "alarm")])
    assert found.words("contradiction")[0].startswith("sam signed the root sha256:")


def test_an_expired_policy_in_force(ledger: Ledger) -> None:
    old = next_policy(ledger)
    ledger.head["expires"] = "2026-01-01T00:00:00Z"
    found = ledger.audit("--policy-history", old)
    assert found.code == 3
    assert any("expired at 2026-01-01 00:00 UTC" in each for each in found.words("policy"))


def test_what_was_promoted_after_its_policy_had_expired(ledger: Ledger) -> None:
    policy = parse_policy(ledger.policy().encode(), "it", datetime.now(UTC))
    said = ledger.said(1)
    late = policy.expires + timedelta(hours=1)
    record = LedgerRecord(
        digest=ledger.digest(1),
        commit=said.commit,
        root=said.root,
        size=said.size,
        index=said.index,
        policy=policy.digest,
        epoch=1,
        evidence=said.evidence,
        previous=(),
        signers=("rita",),
        promoters=("rita",),
        enough=True,
        stands=True,
        why="",
        positions=(),
        time=late,
    )
    book = PolicyBook.of(policy, [])
    (found,) = find_expired([record], book, policy.expires - timedelta(days=1))
    assert found.severity is Severity.ALARM
    assert "under a policy that had expired at 2126-01-01 00:00 UTC" in found.reason
    assert not list(find_expired([replace(record, time=None)], book, datetime.now(UTC)))


@pytest.mark.parametrize("epoch", ["1", "3"])
def test_a_history_that_is_none_is_refused(ledger: Ledger, epoch: str) -> None:
    old = Path(next_policy(ledger))
    text = old.read_text().replace("epoch = 1", f"epoch = {epoch}", 1)
    old.write_text(text if epoch == "3" else text.replace(ledger.head["source"], '"https://x/y"'))
    ended = ledger.run(
        *["audit", "--from", ledger.repository, "--policy", str(ledger.write_policy())],
        *["--policy-history", str(old), "--no-state"],
    )
    assert ended.code == 2
    words = "it is no earlier one" if epoch == "3" else "is of https://x/y, not of"
    assert words in ended.printed
