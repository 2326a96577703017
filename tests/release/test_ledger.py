"""Walking a ledger: a long chain in a few steps, and what nothing leads to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError
from nix_seed.formats.intoto.statement import PromotionPredicate, Source, promotion_statement
from nix_seed.registry.store import ImageStore
from nix_seed.release import ledger as ledger_flow
from nix_seed.release.ledger import LoggedLedger, Walked
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.release.rules.record import Record
from nix_seed.trust.attestations import Discovered, gather
from nix_seed.trust.sign import KeySigner
from support.audits import Ledger, commit, unlist
from support.bulk import bulk
from support.trust import SOURCE, pem


def walk(ledger: Ledger, **changes: object) -> Walked:
    loaded = load_policy(ledger.write_policy(), datetime.now(UTC))
    return LoggedLedger([verifiers_of(loaded)], [ledger.store], SOURCE).walk()


def test_a_chain_of_many_is_walked_in_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.fresh(tmp_path, releases=0)
    bulk(ledger, 40)
    steps = []

    def counted(stores: Sequence[ImageStore], subjects: Iterable[Digest]) -> Discovered:
        steps.append(subjects)
        return gather(stores, subjects)

    monkeypatch.setattr(ledger_flow, "gather", counted)
    walked = walk(ledger)
    assert len(walked.records) == 40
    assert walked.heads == (ledger.digest(40),)
    assert len(steps) == 2


def test_what_has_no_tag_is_reached_by_what_it_comes_after(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=1)
    digest = ledger.forge(2, previous=(ledger.digest(1),))
    assert walk(ledger).heads == (digest,)
    following = ledger.forge(3, previous=(digest,))
    assert walk(ledger).heads == (following,)


def test_what_is_not_linked_is_no_part_of_it(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=1)
    alone = ledger.forge(2, previous=(Digest.of(b"nowhere"),), tags=[str(commit(2))])
    ledger.forge(3, previous=(alone,))
    assert walk(ledger).heads == (ledger.digest(1),)


def test_records_are_walked_after_all_that_they_come_after(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=1)
    one, other = (ledger.forge(n, previous=(ledger.digest(1),)) for n in (2, 3))
    both = ledger.forge(4, previous=tuple(sorted((one, other))))
    walked = walk(ledger)
    order = [record.digest for record in walked.records]
    assert (order[0], set(order[1:3]), order[3]) == (ledger.digest(1), {one, other}, both)
    assert walked.heads == (both,)


def entry(number: int, *previous: Digest) -> Record:
    """Record *number*, which comes after those *previous*."""
    some = Digest.of(b"some")
    said = PromotionPredicate(
        SOURCE, commit(number), some, 1, some, some, 1, some, tuple(sorted(previous))
    )
    payload = promotion_statement(said).dump()
    return Record(Digest.of(payload), payload, said, ())


def test_of_more_heads_than_can_be_named_what_leads_to_all_releases_is_named() -> None:
    """One promoter adds records that come after nothing, and after the oldest release only."""
    one = entry(1)
    two, other = entry(2, one.digest), entry(3, one.digest)
    last = entry(4, two.digest)
    ends = {last.digest, other.digest}
    candidates = (entry(n, *([one.digest] * (n % 2))) for n in count(5))
    added = tuple(islice((e for e in candidates if e.digest < min(ends)), 80))
    records = (one, two, other, last, *added)
    heads = tuple(sorted((*ends, *(each.digest for each in added))))
    standing = frozenset(each.digest for each in records[:4])
    walked = Walked(records, heads, (), (), (), standing, {})
    named = walked.to_come_after()
    assert (len(named), list(named)) == (64, sorted(set(named)))
    assert ends <= set(named) <= set(heads)
    assert walked.admits(entry(1, *named).predicate)
    assert not walked.admits(entry(1, *heads[:64]).predicate)


def replace_promoter(ledger: Ledger) -> Path:
    """Take rita out of the policy, by the next epoch; return the policy before."""
    old = ledger.root / "trust.1.toml"
    old.write_text(ledger.policy())
    del ledger.promoters["rita"]
    ledger.head |= {"epoch": "2", "accepts": f'["{Digest.of(old.read_bytes())}"]'}
    return old


def test_the_ledger_goes_on_when_a_promoter_is_replaced(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path)
    old = replace_promoter(ledger)
    with pytest.raises(
        CouldNotCheck, match=f"may be a record by the policy {Digest.of(old.read_bytes())}"
    ) as error:
        ledger.release("sam")
    assert error.value.hint == (
        "nothing was published; name the file of that policy: --policy-history"
    )
    ledger.history = (old,)
    ledger.release("sam")
    assert ledger.said(4).previous == (ledger.digest(3),)
    found = ledger.audit("--policy-history", str(old))
    assert (found.code, found.found()) == (0, [("revoked", "warning")])


def test_what_a_removed_promoter_released_is_released_again_after_it(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path)
    old = replace_promoter(ledger)
    ledger.history = (old,)
    before = ledger.digest(3)
    for number in (1, 2, 3):
        done = ledger.promote("sam", commit=commit(number))
        assert done.record.predicate.previous == (before,)
        before = done.record.digest
    found = ledger.audit("--policy-history", str(old))
    assert found.code == 0, found.words("skipped")


def attest_another(ledger: Ledger, number: int) -> None:
    """Give alice and bob new keys, with which they attest another image of release *number*."""
    for name in ("alice", "bob"):
        ledger.keys[name] = KeySigner.generate()
        ledger.builders[name]["key"] = pem(ledger.keys[name])
    source = Source(SOURCE, commit(number), Digest.of(b"flake.lock"))
    for image in (ledger.arm, ledger.other):
        for name in ("alice", "bob"):
            signed = ledger.sign(ledger.says(name, image, source=source))
            ledger.attach(ledger.bundle(signed), image, commit(number))


def test_what_a_removed_promoter_released_is_not_released_as_something_else(
    tmp_path: Path,
) -> None:
    ledger = Ledger.fresh(tmp_path)
    old = replace_promoter(ledger)
    ledger.history = (old,)
    attest_another(ledger, 1)
    size = ledger.log.checkpoint().head.size
    by = f"under the accepted policy {Digest.of(old.read_bytes())}, as something else"
    with pytest.raises(CheckedFalse, match=f"{commit(1)} was promoted before, {by}") as error:
        ledger.promote("sam", commit=commit(1))
    assert f"the root {ledger.said(1).root}" in error.value.message
    assert "take that policy out of `accepts`" in (error.value.hint or "")
    assert ledger.log.checkpoint().head.size == size
    del ledger.head["accepts"]
    assert ledger.promote("sam", commit=commit(1)).state == "promoted"


def test_the_true_one_of_two_releases_by_a_removed_promoter_is_released_again(
    tmp_path: Path,
) -> None:
    ledger = Ledger.fresh(tmp_path)
    ledger.forge(1, images=[ledger.other, ledger.arm], previous=(ledger.digest(3),))
    ledger.history = (replace_promoter(ledger),)
    assert ledger.promote("sam", commit=commit(1)).release.root == ledger.said(1).root


def test_who_was_never_a_promoter_holds_nothing_up_for_whom_the_history_is_known(
    tmp_path: Path,
) -> None:
    ledger = Ledger.fresh(tmp_path, releases=1)
    old = replace_promoter(ledger)
    ledger.history = (old,)
    accepted = Digest.of(old.read_bytes())
    ledger.forge(2, "mallory", policy=accepted, epoch=1, previous=(ledger.digest(1),))
    ledger.release("sam")
    assert ledger.said(2).previous == (ledger.digest(1),)


def test_a_later_policy_is_no_earlier_one(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=0)
    later = tmp_path / "later.toml"
    later.write_text(ledger.policy().replace("epoch = 1", "epoch = 2"))
    ledger.history = (later,)
    with pytest.raises(InputError, match="it is no earlier one"):
        ledger.release()


def show(ledger: Ledger, *arguments: str, code: int = 0) -> str:
    """``nix-seed ledger show`` of the ledger, by the policy as it now is."""
    policy = ("--policy", str(ledger.write_policy()))
    ended = ledger.run("ledger", "show", *arguments, "--from", ledger.repository, *policy)
    assert ended.code == code, ended.printed
    return ended.printed


def test_the_logs_ledger_is_asked_by_commit_and_by_root(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=3)
    second = ledger.said(2)
    by_commit = json.loads(show(ledger, str(commit(2)), "--json"))["ledgers"]
    [entry] = by_commit[SOURCE]
    assert entry == {
        "commitKey": str(commit(2).key),
        "root": str(second.root),
        "record": str(ledger.digest(2)),
        "position": "signed by rita",
    }
    # Roots are over commits as well: each release has its own.
    assert json.loads(show(ledger, str(second.root), "--json"))["ledgers"] == by_commit
    everything = json.loads(show(ledger, "--json"))["ledgers"][SOURCE]
    assert [each["record"] for each in everything] == [str(ledger.digest(n)) for n in (1, 2, 3)]
    assert f"record   {ledger.digest(3)}" in show(ledger, str(commit(3)))


def test_what_no_ledger_holds_is_not_there(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=1)
    assert "there is no such entry" in show(ledger, str(commit(7)), code=1)
    assert "there is no such entry" in show(ledger, str(Digest.of(b"root")), code=1)
    ledger.quorum["promoters"] = "2"
    assert "there is no such entry" in show(ledger, str(commit(1)), code=1)
    assert f"ledger {SOURCE}\n\nno release is in it\n" in show(ledger)
    del ledger.head["source"]
    assert "does not say of which repository" in show(ledger, code=2)


def test_two_roots_for_a_commit_are_both_shown_and_no_answer(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=2)
    other = ledger.forge(1, images=[ledger.other, ledger.arm], previous=(ledger.digest(2),))
    words = f"the ledger {SOURCE} has 2 roots for the commit {commit(1).key}: "
    for asked in ([str(commit(1))], []):
        printed = show(ledger, *asked, "--json", code=1)
        shown = json.JSONDecoder().raw_decode(printed)[0]["ledgers"]
        assert {str(ledger.digest(1)), str(other)} <= {each["record"] for each in shown[SOURCE]}
        assert words in printed
    # Of one root, and of another commit, there is no doubt.
    show(ledger, str(ledger.said(1).root))
    show(ledger, str(commit(2)))


def test_a_second_record_of_the_same_root_is_no_second_release(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=2)
    ledger.forge(1, previous=(ledger.digest(2),))
    assert len(json.loads(show(ledger, str(commit(1)), "--json"))["ledgers"][SOURCE]) == 2


def test_a_list_that_leaves_a_record_out_does_not_hide_it_from_all(tmp_path: Path) -> None:
    ledger = Ledger.fresh(tmp_path, releases=1)
    unlist(ledger.layout, commit(1).key, lambda _: False)
    assert "there is no such entry" in show(ledger, str(commit(1)), code=1)
    # By what it comes after it is still found: here, by the beginning.
    assert json.loads(show(ledger, "--json"))["ledgers"][SOURCE][0]["record"] == str(
        ledger.digest(1)
    )
