"""Which outputs of a commit are reproducible by whom, which differ, and where that begins.

An output that differs may only follow from another: its build saw something else. What a build sees
is what its derivation takes, and all that these refer to. A difference begins at an output whose
build saw nothing that differs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from nix_seed.core.digests import Digest, NarHash
from nix_seed.core.reach import reach
from nix_seed.core.values import dataclass
from nix_seed.core.verdict import Fate
from nix_seed.core.words import plural, shortened
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.outputs.rules.agreed import SetAside, Word
from nix_seed.outputs.rules.statement import OutputFact
from nix_seed.trust.rules.policy import Policy
from nix_seed.trust.rules.quorum import independent_builders


class Reproduced(StrEnum):
    """What builders' words on an output come to."""

    SAME = "reproducible"
    ALONE = "built once"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class DifferingFile:
    """A file in which two NARs of an output differ, and how, in one line."""

    file: str
    how: str


@dataclass(frozen=True, slots=True)
class BuiltAlike:
    """What *builders* got: the NAR, and the digests of the *seeds* they built it in."""

    nar_hash: NarHash
    builders: tuple[str, ...]
    seeds: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class OutputFinding:
    """One output, what was said of it, and, where that differs, whether the difference *begins*.

    *follows* names the outputs whose differences its build saw. *files* say in which files the
    first two answers differ, *diffoscope* what that program shows of them, where it is installed;
    *unread* says what of that is not known, and why.
    """

    system: str
    path: StorePath
    names: tuple[str, ...]
    deriver: StorePath | None
    state: Reproduced
    answers: tuple[BuiltAlike, ...]
    follows: tuple[StorePath, ...] = ()
    files: tuple[DifferingFile, ...] = ()
    unread: str = ""
    diffoscope: str = ""

    @property
    def begins(self) -> bool:
        """Whether it differs, and nothing that its build saw does."""
        return self.state is Reproduced.DIFFERS and not self.follows

    @property
    def label(self) -> str:
        """What people call it: a flake output, or else the store path's name."""
        return self.names[0] if self.names else self.path.name


@dataclass(frozen=True, slots=True)
class OutputsReport:
    """All that builders say of the outputs of *commit*; *silent* are those not heard, by system.

    *lies* are of lists and logs that contradict themselves: what else they held is not known.
    """

    commit: Commit
    outputs: tuple[OutputFinding, ...]
    silent: Mapping[str, tuple[str, ...]]
    set_aside: tuple[SetAside, ...] = ()
    unchecked: tuple[str, ...] = ()
    lies: tuple[str, ...] = ()

    def having(self, state: Reproduced) -> tuple[OutputFinding, ...]:
        """Return the outputs in one state."""
        return tuple(each for each in self.outputs if each.state is state)

    @property
    def fate(self) -> Fate:
        """False where something differs or lies, or nothing was said; else unchecked, if it is."""
        if self.having(Reproduced.DIFFERS) or self.lies:
            return Fate.FALSE
        if self.unchecked:
            return Fate.UNCHECKED
        return Fate.VERIFIED if self.outputs else Fate.FALSE

    @property
    def reason(self) -> str:
        """The answer in one line."""
        same, differ = self.having(Reproduced.SAME), self.having(Reproduced.DIFFERS)
        if differ:
            first = [each.label for each in differ if each.begins]
            number = f"{plural(len(differ), 'output differs', 'outputs differ')}"
            return f"{number}; it begins with {shortened(first, 3)}"
        if self.lies or self.unchecked:
            return (*self.lies, *self.unchecked)[0]
        if not self.outputs:
            return f"no builder of the policy has said what the outputs of {self.commit} are"
        alone = len(self.outputs) - len(same)
        number = f"{len(same)} of {plural(len(self.outputs), 'output')} reproducible"
        return f"{number}, {alone} built once" if alone else number


def evaluate_outputs(
    policy: Policy,
    commit: Commit,
    words: Mapping[str, Sequence[Word]],
    set_aside: Iterable[SetAside] = (),
    unchecked: Iterable[str] = (),
    lies: Iterable[str] = (),
) -> OutputsReport:
    """Return what *words*, by system, come to."""
    found: list[OutputFinding] = []
    silent = {}
    for system in sorted({*words, *policy.systems}):
        said = words.get(system, ())
        heard = {word.builder.id for word in said}
        able = (each.id for each in policy.builders if system in each.systems)
        silent[system] = tuple(each for each in able if each not in heard)
        found += _of_system(policy, system, said)
    return OutputsReport(
        commit, tuple(found), silent, tuple(set_aside), tuple(unchecked), tuple(lies)
    )


def _of_system(policy: Policy, system: str, words: Sequence[Word]) -> Iterator[OutputFinding]:
    by_path: dict[StorePath, list[Word]] = {}
    for word in words:
        by_path.setdefault(word.fact.path, []).append(word)
    findings = {path: _finding(policy, system, each) for path, each in by_path.items()}
    differing = {path for path, each in findings.items() if each.state is Reproduced.DIFFERS}
    facts = {path: tuple(word.fact for word in each) for path, each in by_path.items()}
    follows = {path: _follows(path, facts, differing, findings) for path in differing}
    if differing and all(follows.values()):
        follows = {}  # no build can see itself: somebody lies about what it saw
    for path in sorted(findings, key=lambda each: each.name):
        yield replace(findings[path], follows=follows.get(path, ()))


def _finding(policy: Policy, system: str, words: Sequence[Word]) -> OutputFinding:
    answers: dict[object, list[Word]] = {}
    for word in sorted(words, key=lambda word: (word.builder.id, word.statement)):
        answers.setdefault(word.fact.agreement, []).append(word)
    ranked = sorted(answers.values(), key=lambda each: (-len(each), str(each[0].nar_hash)))
    first = ranked[0]
    # What is in too few logs proves nothing, and says otherwise all the same.
    builders = tuple(dict.fromkeys(word.builder for word in first if not word.reason))
    state = Reproduced.ALONE
    if len(ranked) > 1:
        state = Reproduced.DIFFERS
    elif len(independent_builders(builders, policy.quorum.distinct)) > 1:
        state = Reproduced.SAME
    return OutputFinding(
        system,
        first[0].fact.path,
        tuple(sorted({name for word in words for name in word.fact.names})),
        next((word.fact.deriver for word in words if word.fact.deriver), None),
        state,
        tuple(
            BuiltAlike(
                each[0].nar_hash,
                tuple(dict.fromkeys(word.builder.id for word in each)),
                tuple(sorted({word.seed for word in each if word.seed is not None})),
            )
            for each in ranked
        ),
    )


def _follows(
    path: StorePath,
    facts: Mapping[StorePath, Sequence[OutputFact]],
    differing: set[StorePath],
    findings: Mapping[StorePath, OutputFinding],
) -> tuple[StorePath, ...]:
    """Return what differs of all that the build of *path* saw, its own outputs left out."""

    def further(each: StorePath) -> list[StorePath] | None:
        return [one for fact in facts[each] for one in fact.references] if each in facts else None

    saw = [each for fact in facts[path] for each in (*fact.built_from, *fact.references)]
    seen, own = reach(saw, further), findings[path].deriver
    mine = {each for each in seen if own is not None and findings[each].deriver == own}
    return tuple(sorted((seen - mine - {path}) & differing))
