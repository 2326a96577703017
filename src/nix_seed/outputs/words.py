"""From the bytes of bundles to builders' words on store paths, each bundle judged once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import Statement
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.rules.agreed import (
    ANYTHING,
    NotServed,
    Question,
    Served,
    SetAside,
    Word,
    agreed,
    judge_statement,
)
from nix_seed.outputs.rules.statement import (
    PREDICATE_TYPE,
    OutputFact,
    OutputsStatement,
    read_statement,
)
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import Attestation
from nix_seed.trust.rules.bundle import Expected
from nix_seed.trust.rules.claims import Finding, SignedEnvelope, envelopes_of, examine
from nix_seed.trust.rules.policy import Builder, signer_name
from nix_seed.trust.watch_logs import doubt_logs

EXPECTED = Expected(subject=None, predicate_types=(PREDICATE_TYPE,))
"""What a bundle over the outputs of a job must state."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What bundles say: *words* that may count, what was *set_aside*, and what is *unchecked*.

    *lies* are of logs, and set aside as well.
    """

    words: tuple[Word, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    unchecked: tuple[str, ...] = ()
    lies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """A statement as it was read, and what it says of each path."""

    said: OutputsStatement
    facts: Mapping[StorePath, OutputFact]


@dataclass(frozen=True, slots=True)
class _Speaker:
    """A builder's verified *statement* (the digest of its PAE), and why it is no agreement."""

    builder: Builder
    reason: str
    statement: Digest
    read: _Read

    def words(self, path: StorePath | None) -> Iterator[Word]:
        """Yield what it says of *path*, or of all."""
        facts = self.read.facts
        chosen = facts.values() if path is None else filter(None, [facts.get(path)])
        about = self.read.said.seed, self.read.said.system
        return (Word(self.builder, each, self.statement, self.reason, *about) for each in chosen)


@dataclass(frozen=True, slots=True)
class WordReader:
    """Judges bundles by the policy of *by*; what it judged it remembers, by the bundles' bytes."""

    by: Verifiers
    _heard: dict[tuple[tuple[bytes, ...], Question], tuple[Sequence[_Speaker], Heard]] = field(
        default_factory=dict
    )
    _findings: dict[bytes, Finding] = field(default_factory=dict)
    _statements: dict[bytes, _Read | SetAside] = field(default_factory=dict)

    def decide(
        self, path: StorePath, bundles: Iterable[Attestation], unread: Sequence[str] = ()
    ) -> Served | NotServed:
        """Return what may be taken for *path* by what *bundles* say.

        *unread* are further ones that could not be read, one line each.
        """
        heard = self.hear(bundles, path)
        found = agreed(path, heard.words, self.by.policy, (*unread, *heard.unchecked))
        if isinstance(found, NotServed) and not heard.words and heard.set_aside:
            # Who asks why nothing is taken is told of what was found, and does not count.
            return NotServed(f"{found.reason}; {heard.set_aside[0].reason}")
        return found

    def hear(
        self,
        bundles: Iterable[Attestation],
        path: StorePath | None = None,
        asked: Question = ANYTHING,
    ) -> Heard:
        """Return what *bundles* say of *path* (None: of any), as far as it is about *asked*."""
        found = tuple(bundles)
        key = tuple(each.text for each in found), asked
        if key not in self._heard:
            self._heard[key] = self._judged(found, asked)
        speakers, heard = self._heard[key]
        words = (word for each in speakers for word in each.words(path))
        return replace(heard, words=tuple(words))

    def _judged(
        self, bundles: Iterable[Attestation], asked: Question
    ) -> tuple[Sequence[_Speaker], Heard]:
        """Return who speaks, and what is heard besides words."""
        findings = [self._examined(each) for each in bundles]
        doubts = doubt_logs(findings, self.by.watch)
        refused = [each.verdict for each in findings if not each.verdict.verified]
        aside = [SetAside("", each.reason) for each in refused if each.fate is Fate.FALSE]
        aside += [SetAside("", words) for words in doubts.lies]
        unchecked = [each.reason for each in refused if each.fate is Fate.UNCHECKED]
        unchecked += [e.reason for e in doubts.watched.values() if e.fate is Fate.UNCHECKED]
        speakers: list[_Speaker] = []
        for envelope in envelopes_of(findings, self.by.policy, doubts.distrusted):
            bundle = envelope.findings[0].verdict.bundle
            assert bundle is not None
            key = bundle.envelope.pae
            if key not in self._statements:
                self._statements[key] = _parse(envelope)
            read = self._statements[key]
            if isinstance(read, SetAside):
                aside.append(read)
                continue
            judged = judge_statement(read.said, envelope, self.by.policy, self.by.now, asked)
            if isinstance(judged, SetAside):
                aside.append(judged)
            else:
                speakers.append(_Speaker(*judged, Digest.of(key), read))
        return speakers, Heard((), tuple(aside), tuple(unchecked), tuple(doubts.lies))

    def _examined(self, found: Attestation) -> Finding:
        if found.text not in self._findings:
            finding = examine(found.place, found.text, self.by.builders, EXPECTED)
            self._findings[found.text] = finding
        return self._findings[found.text]


def unverified_outputs(found: Attestation) -> OutputsStatement:
    """Return what the bundle *found* says, whoever signed it; ``InputError`` if it says nothing."""
    envelope = Bundle.parse(found.text, found.place).dsse_envelope
    if envelope is None:
        raise InputError(f"{found.place} holds no statement")
    return read_statement(Statement.parse(envelope.payload, found.place), found.place)


def _parse(envelope: SignedEnvelope) -> _Read | SetAside:
    finding = envelope.findings[0]
    assert finding.verdict.statement is not None
    try:
        said = read_statement(finding.verdict.statement, finding.name)
    except InputError as error:
        return SetAside(signer_name(envelope.signer), error.message)
    return _Read(said, {each.path: each for each in said.outputs})
