"""Which NAR may be taken for a store path, by the policy (docs/outputs.md).

``own`` takes what any builder of the policy says; of several answers the one that most independent
builders give. Nobody can block that, and whoever says otherwise is named. ``quorum`` takes what as
many independent builders say as the policy wants of an image, and nothing where one of its builders
says otherwise: the path is built instead. ``none`` takes nothing.

Who says nothing, or is kept silent, never lowers the bar.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.rules.statement import OutputFact, OutputsStatement
from nix_seed.trust.rules.claims import SignedEnvelope, too_few_logs, untimely
from nix_seed.trust.rules.policy import Builder, Policy, signer_name
from nix_seed.trust.rules.quorum import independent_builders


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about: outputs of *commit* for *system*, built in *seed*; None: of any."""

    commit: Commit | None = None
    system: str | None = None
    seed: Digest | None = None


ANYTHING: Final = Question()


@dataclass(frozen=True, slots=True)
class Word:
    """What *builder* says of one store path, by a verified *statement* (the digest of its PAE).

    *reason* says why it counts for no agreement, though its signer said it: a dissent all the same.
    *seed* is the image that it says it was built in, *system* what for.
    """

    builder: Builder
    fact: OutputFact
    statement: Digest
    reason: str = ""
    seed: Digest | None = None
    system: str = ""

    @property
    def nar_hash(self) -> NarHash:
        """The SHA-256 of the NAR that the builder got."""
        return self.fact.nar_hash


@dataclass(frozen=True, slots=True)
class SetAside:
    """A verified statement that is no word on the question, and *reason*, in one line."""

    signer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Served:
    """What may be taken for a path, on whose word; *dissents* are those that say otherwise."""

    fact: OutputFact
    builders: tuple[Builder, ...]
    dissents: tuple[Word, ...] = ()

    @property
    def nar_hash(self) -> NarHash:
        """The SHA-256 of the NAR that may be taken."""
        return self.fact.nar_hash

    @property
    def words(self) -> str:
        """The answer in one line."""
        said = f"on the word of {', '.join(builder.id for builder in self.builders)}"
        if not self.dissents:
            return said
        number = plural(len({word.nar_hash for word in self.dissents}), "other NAR")
        return f"{said}; {_who(self.dissents)} got {number}"


@dataclass(frozen=True, slots=True)
class NotServed:
    """Why nothing may be taken, in one line; *against* are the words that stand in the way."""

    reason: str
    against: tuple[Word, ...] = ()


def judge_statement(
    said: OutputsStatement,
    envelope: SignedEnvelope,
    policy: Policy,
    now: datetime,
    asked: Question = ANYTHING,
) -> tuple[Builder, str] | SetAside:
    """Return whose word a verified statement is, and why it counts for no agreement (or nothing).

    ``SetAside`` where it is not a builder's of the policy, in its time, or not about *asked*.
    """
    builder = next((each for each in policy.builders if each.signer == envelope.signer), None)
    if builder is None:
        name = signer_name(envelope.signer)
        return SetAside(name, f"{name} is no builder of the policy")
    for reason in _foreign(said, builder, policy, asked):
        return SetAside(builder.id, reason)
    for _, reason in untimely(envelope.time, said.finished_on, builder, now):
        return SetAside(builder.id, reason)
    return builder, too_few_logs(envelope.logs, policy)


def _foreign(
    said: OutputsStatement, builder: Builder, policy: Policy, asked: Question
) -> Iterator[str]:
    if said.builder != builder.id:
        yield f"it names the builder {said.builder!r}, but {builder.id} signed it"
    if policy.source is not None and said.source != policy.source:
        yield f"it is about {said.source}, not {policy.source}"
    if asked.commit not in (None, said.commit):
        yield f"it is about the commit {said.commit}"
    if asked.system not in (None, said.system):
        yield f"it is about {said.system}"
    if asked.seed not in (None, said.seed):
        yield f"it was built in the seed {said.seed}, not in {asked.seed}"
    if said.system not in builder.systems:
        yield f"{builder.id} does not build for {said.system}"


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer on a path: the *words* that give it, and the independent builders *counted*."""

    words: tuple[Word, ...]
    counted: tuple[Builder, ...]

    @property
    def fact(self) -> OutputFact:
        """What they say: that of the first of them whose word counts, as derivers may differ."""
        return next((word for word in self.words if not word.reason), self.words[0]).fact


def agreed(
    path: StorePath, words: Iterable[Word], policy: Policy, unchecked: Sequence[str] = ()
) -> Served | NotServed:
    """Return what may be taken for *path* on *words*, whose order makes no difference.

    *unchecked* are what could not be read or judged, one line each: it may hold a dissent.
    """
    if policy.outputs == "none":
        return NotServed("the policy says that no output is taken: outputs is none")
    answers = _answers(path, words, policy)
    if not answers:
        return NotServed(f"no builder of the policy has said what {path} is")
    if policy.outputs == "own":
        best = answers[0]
        if best.counted:
            return Served(best.fact, best.counted, _others(answers))
        first = best.words[0]
        return NotServed(f"{first.builder.id} says what it is, but {first.reason}")
    if unchecked:
        return NotServed(f"whether builders agree could not be checked: {unchecked[0]}")
    return _of_enough(answers, policy.quorum.threshold)


def _of_enough(answers: Sequence[_Answer], wanted: int) -> Served | NotServed:
    best, others = answers[0], _others(answers)
    if others:
        tied = len(answers[1].counted) == len(best.counted)
        named = (*best.words, *others) if tied else others
        how = "built different things" if tied else "built something else"
        return NotServed(f"builders disagree: {_who(named)} {how}", named)
    if len(best.counted) >= wanted:
        return Served(best.fact, best.counted)
    number = f"{len(best.counted)} of the {wanted} builders wanted agree"
    reasons = [f"{word.builder.id}: {word.reason}" for word in best.words if word.reason]
    return NotServed("; ".join([number, *dict.fromkeys(reasons)]))


def _others(answers: Sequence[_Answer]) -> tuple[Word, ...]:
    return tuple(word for each in answers[1:] for word in each.words)


def _answers(path: StorePath, words: Iterable[Word], policy: Policy) -> Sequence[_Answer]:
    """Return the answers on *path*, the one that most builders give first."""
    place = {builder.id: number for number, builder in enumerate(policy.builders)}
    found: dict[object, list[Word]] = {}
    for word in words:
        if word.fact.path == path and word.builder.id in place:
            found.setdefault(word.fact.agreement, []).append(word)
    answers = [_answer(each, place, policy) for each in found.values()]
    return sorted(
        answers,
        key=lambda each: (
            -len(each.counted),
            min(place[word.builder.id] for word in each.words),
            str(each.words[0].fact.agreement),
        ),
    )


def _answer(words: Iterable[Word], place: Mapping[str, int], policy: Policy) -> _Answer:
    ordered = sorted(words, key=lambda word: (place[word.builder.id], word.reason, word.statement))
    counting = {word.builder.id for word in ordered if not word.reason}
    builders = [builder for builder in policy.builders if builder.id in counting]
    return _Answer(tuple(ordered), independent_builders(builders, policy.quorum.distinct))


def _who(words: Iterable[Word]) -> str:
    return ", ".join(dict.fromkeys(word.builder.id for word in words))
