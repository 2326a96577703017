"""The page as a document: true to its report, whole, and proof against what it shows."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck, InputError, NixFailed
from nix_seed.core.safe_text import printable
from nix_seed.core.verdict import Check, Fate
from nix_seed.flake.rules.licence import UNSTATED, Licence
from nix_seed.licences.rules.judge import Judged
from nix_seed.release.rules import record as promotion
from nix_seed.report.page.document import licence_section, report_page
from nix_seed.report.page.parts import (
    Child,
    PageSection,
    ShownCheck,
    State,
    check_list,
    fold,
    macro,
    note,
    page,
    web_address,
)
from nix_seed.report.page.trust import origin, trust_section
from nix_seed.report.report import Absent, JudgedPaths, TrustAnswer, part
from nix_seed.trust.rules.policy import Promoter
from nix_seed.trust.sign import KeySigner
from support.report_pages import (
    HOSTILE,
    hostile_page,
    hostile_trust,
    large_page,
    plain_report,
    spec_of,
    trust_in,
)
from support.trust import COMMIT, World


def rendered(content: Child) -> str:
    """Return the markup of *content*, as a section of a page has it."""
    text = page("", "", [PageSection("x", "", None, content)])
    return text.partition('id="x-title"></h2>')[2].rpartition("</section></main>")[0]


VOID = {"meta", "link", "br", "input", "col", "hr", "wbr"}


class Document(HTMLParser):
    """A page as a browser reads it; mistakes in its nesting are kept."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.mistakes: list[str] = []
        self.headings: list[int] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.mistakes += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.mistakes.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [value or "" for _, each, value in self.attributes if each == name]


def small_page() -> str:
    return report_page(plain_report(spec_of([("base", [("a", 500), ("b", 200)])])))


def check_whole(text: str) -> Document:
    """See that *text* is one well-formed page that carries all it needs."""
    document = Document(text)
    assert document.mistakes == []
    assert (document.tags["script"], document.tags["style"], document.tags["h1"]) == (1, 1, 1)
    names = document.values("id")
    assert len(names) == len(set(names)), [n for n, c in Counter(names).items() if c > 1]
    for target in document.values("href"):
        if target.startswith("#"):
            assert target[1:] in names, target
    for target in document.values("aria-labelledby"):
        assert target in names
    for before, after in zip(document.headings, document.headings[1:], strict=False):
        assert after <= before + 1, document.headings
    assert document.tags["table"] == document.tags["caption"]
    heads = [(tag, value) for tag, name, value in document.attributes if name == "scope"]
    assert len(heads) == document.tags["th"]
    return document


def test_the_page_fetches_nothing_and_runs_nothing_but_its_own() -> None:
    text = small_page()
    document = check_whole(text)
    [policy] = [value for value in document.values("content") if "default-src" in value]
    for tag in ("script", "style"):
        own = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    for tag, name, value in document.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "style", "srcset", "action"), (tag, name)
        if name == "href":
            assert value in ("data:,",) or str(value).startswith("#"), value
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert ".innerHTML" not in text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_are_shown_as_they_are(text: str, tmp_path: Path) -> None:
    out = hostile_page(text, tmp_path)
    document = check_whole(out)
    shown = printable(text)
    words = "".join(document.texts)
    assert words.count(shown[:100]) > 15
    assert "\u202e" not in out
    assert "\x1b" not in out
    assert not document.tags["img"]
    assert not [name for _, name, _ in document.attributes if name.startswith("on")]
    for target in document.values("href"):
        assert target.startswith("#") or target == "data:,", target


def test_links_lead_to_the_web_alone() -> None:
    assert rendered(web_address("https://vendor.example/x")) == (
        '<a href="https://vendor.example/x" rel="noreferrer noopener external">'
        "https://vendor.example/x</a>"
    )
    for text in ("javascript:alert(1)", "mirror://debian/x", "https://x/" + "y" * 500):
        assert "<a " not in rendered(web_address(text))


def test_a_long_text_is_folded_and_kept() -> None:
    assert fold("short") == "short"
    assert "x" * 5000 in rendered(fold("x" * 5000))
    assert "<details>" in rendered(fold("x" * 5000))


def test_the_four_ends_of_a_check_never_look_alike() -> None:
    """Not by their words, not by their shapes, and not by their colours alone."""
    states = (State.VERIFIED, State.FALSE, State.UNCHECKED, State.NOT_ASKED)
    assert len({rendered(macro("mark", state)) for state in states}) == 4
    for state in states:
        text = rendered(check_list([ShownCheck("Name", state, "why", "evidence")]))
        assert [each for each in states if f"> {each.value}<" in text] == [state]
        assert rendered(macro("mark", state)) in text
        assert "why" in text
        assert "evidence" in text
        assert state.value in rendered(macro("badge", state, "why"))
        assert state.value in rendered(note(state, "why"))


def test_the_states_are_those_of_the_rules() -> None:
    assert {State(fate.value) for fate in Fate} == {State.VERIFIED, State.FALSE, State.UNCHECKED}


def test_what_was_not_asked_says_so_and_how_to_ask() -> None:
    words = " ".join(Document(small_page()).texts)
    for name in ("Signatures", "Logs", "Quorum", "Contents", "Promotion"):
        assert re.search(rf"not asked\s+{name}", words), name
    assert words.count("ask: --so") == 4
    assert "verified" not in words
    assert "checked and false" not in words


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (CheckedFalse("it lies", detail="more"), "checked and false"),
        (CouldNotCheck("it is down", hint="wait"), "could not check"),
        (NixFailed("it cannot be evaluated", detail="at line 3"), "could not check"),
    ],
)
def test_a_part_that_fails_is_said_to_have_failed(error: Exception, state: str) -> None:
    def fail() -> None:
        raise error

    found: Absent | None = part(fail)
    assert isinstance(found, Absent)
    assert found.state == state
    report = plain_report(spec_of([("base", [("a", 5)])]))
    for failed in (
        replace(report, change=found),
        replace(report, licences=found),
        replace(report, trust=found),
        replace(report, roots=found),
    ):
        text = "".join(Document(report_page(failed)).texts)
        assert text.count(state) >= 2
        assert str(error) in text


def test_what_cannot_be_asked_is_no_part_of_a_page() -> None:
    def fail() -> None:
        raise InputError("there is no such image")

    with pytest.raises(InputError, match="there is no such image"):
        part(fail)


def test_the_same_report_makes_the_same_page() -> None:
    assert small_page() == small_page()
    assert str(datetime.now(UTC).year) not in "".join(Document(small_page()).texts)


def promotion_text(trust: TrustAnswer) -> str:
    return " ".join(Document(rendered(trust_section(trust).body)).texts)


def test_the_commit_is_that_of_a_met_quorum(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert origin(trust_in(world)) == [("Commit", None), ("Source", None), ("Attested by", None)]
    world.publish("alice", "bob")
    found = dict(origin(trust_in(world)))
    assert str(COMMIT) in str(found["Commit"])
    assert found["Source"] == trust_in(world).policy.source
    assert origin(Absent("not asked", "Nobody asked.")) == []


def test_what_nobody_knows_the_licence_of_is_no_yes() -> None:
    spec = spec_of([("base", [("a", 500)])])
    report = plain_report(spec)
    assert licence_section(spec, report.licences).state is State.NOT_ASKED
    [path] = spec.paths

    def judged(licence: Licence) -> JudgedPaths:
        return JudgedPaths(".", (Judged(path, licence),), ())

    assert licence_section(spec, judged(Licence("MIT", "redistributable"))).state is State.VERIFIED
    assert licence_section(spec, judged(UNSTATED)).state is State.UNCHECKED


def test_a_promotion_is_shown_among_the_checks(tmp_path: Path) -> None:
    trust = hostile_trust("mallory", tmp_path)
    assert re.search(r"not asked\s+Promotion\s+The policy knows no prom", promotion_text(trust))
    key = KeySigner.generate().public_key
    trust = replace(trust, policy=replace(trust.policy, promoters=(Promoter("rita", key),)))
    assert re.search(
        r"checked and false\s+Promotion\s+Its images are of no one", promotion_text(trust)
    )
    checks = (
        Check("promoters", Fate.VERIFIED, "rita signed, 1 must"),
        Check("unique", Fate.UNCHECKED, "a ledger is out of reach"),
        Check("<b>new</b>", Fate.FALSE, "<i>no</i>"),
    )
    result = promotion.PromotionResult(COMMIT, None, checks)
    found = replace(trust.verification, promotion=result)
    text = promotion_text(replace(trust, verification=found))
    assert re.search(r"verified\s+Promotion: signed by enough promoters\s+rita signed", text)
    assert re.search(r"could not check\s+Promotion: the only one of its commit", text)
    assert re.search(r"checked and false\s+Promotion: <b>new</b>\s+<i>no</i>", text)


def test_every_word_about_the_image_is_there_with_its_fate(tmp_path: Path) -> None:
    section = trust_section(hostile_trust("mallory", tmp_path))
    text = " ".join(Document(rendered(section.body)).texts)
    assert "carol built something else from this commit" in str(section.lead)
    assert "it names the builder 'mallory', but bob signed it" in text
    assert re.search(r"alice\s+agrees", text)
    assert re.search(r"carol\s+dissents", text)
    assert "In what the image of carol differs" in text
    assert "gcc-12.2.0" in text
    assert re.search(r"checked and false\s+Quorum", text)


def test_what_builders_say_that_it_rests_on_is_shown(tmp_path: Path) -> None:
    ours, other = Digest.of(b"roots"), Digest.of(b"other roots")
    world = World.fresh(tmp_path)
    world.publish("alice", "bob", roots_digest=ours)
    world.publish("carol", roots_digest=other)
    section = trust_section(trust_in(world))
    text = " ".join(Document(rendered(section.body)).texts)
    assert str(section.lead).startswith("Checked and false for commit c0ffee000000 of https://")
    assert str(section.lead).endswith(": carol got this image from other trust roots.")
    assert re.search(rf"Trust roots, and who states them\s+{ours}\s+alice, bob\s+{other}", text)
    assert re.search(rf"carol\s+dissents\s.*it states the trust roots\s+{other}", text)
    assert "In what the image of carol differs" not in text


def test_a_page_can_be_made_of_the_parts_alone() -> None:
    """As for another report, of a ledger say."""
    sections = [PageSection("one", "One", "Lead.", check_list([ShownCheck("a", State.VERIFIED)]))]
    text = page("Title", macro("badge", State.FALSE, "why"), sections)
    document = Document(text)
    assert document.mistakes == []
    assert "One" in document.texts
    assert "one" in document.values("id")


def test_an_image_of_5000_paths_makes_a_page_below_3_mb() -> None:
    text = large_page(5000)
    document = check_whole(text)
    assert len(text.encode()) < 3_000_000
    assert "package-number-4999" in "".join(document.texts)


@pytest.mark.slow
def test_an_image_of_50000_paths_makes_a_page_still() -> None:
    text = large_page(50_000)
    check_whole(text)
    assert len(text.encode()) < 3_000_000
    assert "smaller ones, " in text
