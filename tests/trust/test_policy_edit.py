"""Policies change without losing a comment, and what is written is what was asked for, no more."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.policy_change import (
    NewBuilder,
    PolicyStep,
    add_builder,
    compare_policies,
    next_policy,
)
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.policy_template import PolicyTemplate
from nix_seed.trust.sign import KeySigner

NOW = datetime(2026, 7, 1, tzinfo=UTC)
THEN = datetime(2026, 1, 1, tzinfo=UTC)
VKEY = "log.example+31dc3b43+AWtN8Pq+UZ3zBL1HgRWAxZLCAqQp6ZpRlUYFCWXuD0cJ"


def pem() -> str:
    return KeySigner.generate().public_key.pem.decode()


def written() -> str:
    """A policy as `policy init` writes it, with a comment of somebody's own in every place."""
    text = PolicyTemplate(
        expires=datetime(2027, 1, 1, tzinfo=UTC),
        systems=("x86_64-linux",),
        source="https://forge.example/owner/project",
        keys=[(name, pem()) for name in ("alice", "bob", "carol")],
        promoters=[("rita", pem()), ("sam", pem())],
    ).render()
    lines = []
    for number, line in enumerate(text.splitlines()):
        if line.startswith("[["):
            lines.append(f"# about the {line.strip('[]')} on line {number}, and nobody else")
        lines.append(line)
    return "\n".join(lines) + "\n\n# the end\n"


def read(text: str) -> Policy:
    return parse_policy(text.encode(), "trust.toml", NOW)


def edits(old: str, new: str) -> list[str]:
    diff = difflib.ndiff(old.splitlines(), new.splitlines())
    return [line for line in diff if line[0] in "+-"]


def step(text: str, **how: object) -> str:
    values = {"revoked": {}} | how
    return next_policy(text, read(text), PolicyStep(**values), "trust.toml")  # type: ignore[arg-type]


def test_the_next_policy_accepts_the_one_before() -> None:
    text = written()
    old, new = read(text), read(step(text))
    assert (new.epoch, dict(new.accepts)) == (2, {old.digest: 1})
    changed = edits(text, step(text))
    assert [line[:9] for line in changed] == ["- epoch =", "+ epoch =", "+ accepts"]
    assert changed[1].endswith("# raise it with every change")


def test_and_the_one_after_accepts_both() -> None:
    text = written()
    second = step(text)
    third = step(second)
    found = read(third)
    assert (found.epoch, list(found.accepts)) == (3, [read(text).digest, read(second).digest])
    assert "# the end" in third


def test_without_accepting() -> None:
    assert read(step(written(), accepts=False)).accepts == {}


@pytest.mark.parametrize("name", ["alice", "bob", "carol"])
def test_a_revoked_builder(name: str) -> None:
    text = written()
    new = step(text, revoked={name: THEN}, accepts=False)
    changed = edits(text, new)
    assert [line for line in changed if "epoch" not in line] == [
        "+ revokedAt = 2026-01-01T00:00:00Z"
    ]
    assert {b.id: b.revoked_at for b in read(new).builders}[name] == THEN
    again = step(new, revoked={name: NOW}, accepts=False)
    assert {b.id: b.revoked_at for b in read(again).builders}[name] == NOW
    assert again.count("\nrevokedAt") == 1


@pytest.mark.parametrize(("name", "left"), [("rita", "sam"), ("sam", "rita")])
def test_a_removed_promoter_takes_no_comment_of_another_along(name: str, left: str) -> None:
    text = written()
    new = step(text, removed=[name], accepts=False)
    assert [each.id for each in read(new).promoters] == [left]
    gone = [line for line in edits(text, new) if line.startswith("- #")]
    assert gone == []


def test_the_last_promoter_is_not_removed_unawares() -> None:
    text = step(written(), removed=["rita"])
    with pytest.raises(InputError, match="promoters must sign, but there are 0"):
        read(step(text, removed=["sam"]))


def test_a_builder_comes_after_the_others() -> None:
    text, key = written(), pem()
    new = add_builder(text, NewBuilder("dave", {"operator": "dave", "key": key}), "trust.toml")
    assert [b.id for b in read(new).builders] == ["alice", "bob", "carol", "dave"]
    changed = edits(text, new)
    assert not [line for line in changed if line[0] == "-"]
    assert changed[:4] == ["+ [[builders]]", '+ id = "dave"', '+ operator = "dave"', '+ key = """']
    assert list(compare_policies(read(text), read(new))) == ["builders: dave is new"]
    # The comment about the promoters still stands right above them.
    lines = new.splitlines()
    assert lines[lines.index("[[promoters]]") - 1].startswith("# about the promoters")


def test_a_builder_with_every_value() -> None:
    values: dict[str, str | datetime | Sequence[str]] = {
        "issuer": "https://issuer.example",
        "subject": 'a "quoted" one',
        "operator": "its operator",
        "systems": ["x86_64-linux"],
        "notBefore": THEN,
    }
    found = read(add_builder(written(), NewBuilder("eve", values), "x")).builders[-1]
    assert (found.id, found.operator, found.not_before) == ("eve", "its operator", THEN)
    assert str(found.signer) == 'a "quoted" one of https://issuer.example'


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda text: step(text, revoked={"nobody": THEN}), "has no builder nobody"),
        (lambda text: step(text, removed=["nobody"]), "has no promoter nobody"),
        (lambda text: step(text, places={"nowhere": "x"}), "has no log nowhere"),
        (lambda text: add_builder(text, NewBuilder("bob", {}), "x"), "has a builder bob already"),
        (lambda _: add_builder("builders = [ {} ]", NewBuilder("b", {}), "x"), "in one line"),
        (lambda _: add_builder("= broken", NewBuilder("b", {}), "x"), "cannot be edited"),
    ],
)
def test_what_cannot_be_edited(work: Callable[[str], str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        work(written())


def test_windows_lines_stay() -> None:
    text = written().replace("\n", "\r\n")
    new = next_policy(text, parse_policy(text.encode(), "x", NOW), PolicyStep({"bob": THEN}), "x")
    assert {b.id: b.revoked_at for b in read(new).builders}["bob"] == THEN


_COMMENT = st.text("abc #\"'[]=,\t", max_size=12).map(lambda text: f"# {text}")


@given(st.data())
@pytest.mark.slow
def test_comments_anywhere_are_left_alone(data: st.DataObject) -> None:
    """Comments and empty lines at random places: every line there was is there, in its order."""
    lines: list[str] = []
    quoted = False
    for line in FIXED.splitlines():
        if not quoted:
            lines += data.draw(st.lists(_COMMENT | st.just(""), max_size=2))
        lines.append(line)
        quoted ^= line.count('"""') % 2 == 1
    text = "\n".join(lines) + "\n"
    new = step(text, revoked={"bob": THEN}, removed=[])
    new = add_builder(new, NewBuilder("dave", {"operator": "dave", "key": KEY}), "x")
    kept = [line for line in edits(text, new) if line[0] == "-"]
    assert [line[:9] for line in kept] == ["- epoch ="]
    told = list(compare_policies(read(text), read(new)))
    assert {line.partition(":")[0] for line in told} == {"epoch", "accepts", "builders"}


FIXED, KEY = written(), pem()


def test_a_policy_in_another_style() -> None:
    """One in another style than ours: tight, tables in another order, an array over lines."""
    keys = [pem() for _ in range(3)]
    text = f"""version=1
epoch=7 # seven
expires=2027-01-01T00:00:00Z
systems=["x86_64-linux"]
accepts=[
  "sha256:{"a" * 64}",   # the first
]
[[promoters]]
id="rita"
key='''
{keys[0]}'''
[[builders]]
key='''
{keys[1]}'''
id="a" # the first
operator="a"
[quorum]
threshold=1
promoters=1
[built]
"""
    new = step(text, revoked={"a": THEN})
    assert (read(new).epoch, len(read(new).accepts)) == (8, 2)
    assert "# the first" in new
    assert "# seven" in new
    more = add_builder(new, NewBuilder("b", {"operator": "b", "key": keys[2]}), "x")
    assert [each.id for each in read(more).builders] == ["a", "b"]
