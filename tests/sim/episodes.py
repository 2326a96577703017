"""One episode: an adversary with some power, one plan, and a victim who asks in every way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from nix_seed.core.digests import Digest
from nix_seed.core.errors import NixSeedError
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import PAYLOAD_TYPE, Commit, pae
from nix_seed.logs.log import CheckpointState, Historian
from nix_seed.logs.rules.entry import TrustedLog
from nix_seed.release.rules.answer import Verification
from nix_seed.release.verifiers import RootPins, Verifiers
from nix_seed.release.verify import Query, verify_commit, verify_image
from nix_seed.trust.watch_logs import LogWatch
from sim.scene import NOW, REFERENCE, SYSTEMS, Cast, Scene, Terms
from sim.strategies import STRATEGIES, Attack, Power, Shown
from sim.transports import MemoryLog, MemoryStores

__all__ = [
    "Episode",
    "Result",
    "Severity",
    "before",
    "every_power",
    "expected",
    "fast_directory",
    "judge",
    "questions",
    "releases_without",
    "remembering",
    "returning",
]


class Severity(IntEnum):
    """How far an adversary got. *Lone*: only where no honest builder had spoken yet."""

    NOTHING = 0
    LONE = 1
    AGAINST_HONEST = 2
    UNSEEN = 3


@dataclass(frozen=True, slots=True)
class Episode:
    """*spoken*: the commit was released honestly before the attack, else nobody has built it."""

    terms: Terms
    power: Power
    strategy: str
    spoken: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What of the victim's questions was answered with a false yes; *seen*: logs hold a trace.

    *asked* is how many questions there were.
    """

    episode: Episode
    accepted: tuple[str, ...]
    seen: bool
    asked: int

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        if not self.accepted:
            return Severity.NOTHING
        if not self.seen:
            return Severity.UNSEEN
        return Severity.AGAINST_HONEST if self.episode.spoken else Severity.LONE


def expected(terms: Terms, power: Power) -> Severity:
    """Return how far the policy's promises let an adversary get, at most."""
    if power.builders < terms.threshold:
        return Severity.NOTHING
    if power.promoters >= terms.wanted and power.logs >= terms.needed:
        return Severity.UNSEEN
    return Severity.AGAINST_HONEST if power.registry else Severity.LONE


def every_power(terms: Terms) -> Iterator[Power]:
    """Every combination of what can be controlled."""
    counts = (range(n + 1) for n in (terms.builders, terms.logs, terms.promoters))
    for builders, logs, promoters in product(*counts):
        for registry in (False, True):
            yield Power(builders, logs, promoters, registry)


@cache
def _cast(terms: Terms) -> Cast:
    return Cast(terms)


@cache
def before(terms: Terms, spoken: bool) -> tuple[Scene, Commit, Commit]:
    """A scene with an old release, and a commit that is released too, if *spoken*."""
    scene = Scene(_cast(terms))
    old, commit = scene.commit("an old commit"), scene.commit("the commit")
    scene.release(old)
    if spoken:
        scene.release(commit)
    return scene, commit, old


def judge(episode: Episode) -> Result:
    """Play *episode* against a victim that has seen nothing before."""
    scene, commit, old = before(episode.terms, episode.spoken)
    attack = Attack(scene.copy(), episode.power, commit, old)
    shown = STRATEGIES[episode.strategy](attack)
    judges = Verifiers(scene.cast.policy, NOW)
    accepted, payloads, asked = [], [], 0
    for name, answer in questions(attack, shown, judges):
        asked += 1
        if _false_yes(attack, name, answer):
            accepted.append(name)
            assert answer is not None
            assert answer.promotion is not None
            assert answer.promotion.record is not None
            payloads.append(answer.promotion.record.payload)
    seen = all(any(_holds(log, text) for log in attack.scene.logs) for text in payloads)
    return Result(episode, tuple(accepted), seen, asked)


def returning(episode: Episode) -> tuple[str, ...]:
    """Play against a victim that verified the honest release before; return its false yeses."""
    assert episode.spoken
    scene, commit, old = before(episode.terms, True)
    attack = Attack(scene.copy(), episode.power, commit, old)
    with TemporaryDirectory(dir=fast_directory()) as directory:
        honest = Shown(attack.scene.store.copy(), [log.fork() for log in attack.scene.logs])
        for name, answer in questions(attack, honest, remembering(scene, honest, Path(directory))):
            if name.startswith("commit"):
                assert answer is not None
                assert answer.fate is Fate.VERIFIED, name
        shown = STRATEGIES[episode.strategy](attack)
        judges = remembering(scene, shown, Path(directory))
        return tuple(
            name
            for name, answer in questions(attack, shown, judges)
            if _false_yes(attack, name, answer)
        )


def releases_without(terms: Terms, down: tuple[int, int, int]) -> bool:
    """Whether an honest release succeeds with so many builders, logs and promoters away.

    The victim asks the logs, too.
    """
    scene = Scene(_cast(terms))
    commit = scene.commit("the commit")
    builders, logs, promoters = down
    for log in scene.logs[:logs]:
        log.down = True
    with TemporaryDirectory(dir=fast_directory()) as directory:
        shown = Shown(scene.store, scene.logs)
        try:
            scene.attest(list(scene.cast.builders)[builders:], scene.images(commit), commit)
            for number, who in enumerate(list(scene.cast.promoters)[promoters:]):
                judges = remembering(scene, shown, Path(directory) / str(number))
                scene.promote(who, commit, judges=judges)
        except NixSeedError:
            return False
        judges = remembering(scene, shown, Path(directory) / "victim")
        answer = _asked(shown, judges, commit, None)
        return answer is not None and answer.fate is Fate.VERIFIED


def fast_directory() -> str | None:
    """Where small files are quick to write; None: wherever temporary ones go."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def remembering(scene: Scene, shown: Shown, directory: Path) -> Verifiers:
    """Verifiers that ask the logs as they are shown, and remember in *directory*."""
    policy = scene.cast.policy
    there = {log.trusted.id: log for log in shown.logs}

    def historian(log: TrustedLog, place: str) -> Historian:
        return there[place]

    logs = [(log.trusted, log.trusted.id) for log in shown.logs]
    watch = LogWatch(CheckpointState(directory / "checkpoints"), logs, historian)
    return Verifiers(policy, NOW, watch=watch, pins=RootPins(directory / "promoted"))


def questions(
    attack: Attack, shown: Shown, judges: Verifiers
) -> Iterator[tuple[str, Verification | None]]:
    """Ask by commit, by one system of it, by the index, and by each image."""
    commit = attack.commit
    yield "commit", _asked(shown, judges, commit, None)
    for system in SYSTEMS:
        yield f"commit, {system}", _asked(shown, judges, commit, system)
    index = shown.store.tags.get("latest")
    if index is not None:
        yield "index", _named(shown, judges, index, commit)
        yield "index, any commit", _named(shown, judges, index, None)
        for digest in shown.store.images_of(index):
            yield f"image {digest}", _named(shown, judges, digest, commit)


def _asked(
    shown: Shown, judges: Verifiers, commit: Commit, system: str | None
) -> Verification | None:
    stores = MemoryStores(views={REFERENCE.repository: shown.store})
    query, by = Query(commit, system, False, True), replace(judges, stores=stores)
    return _answer(lambda: verify_commit(by, REFERENCE, query))


def _named(
    shown: Shown, judges: Verifiers, digest: Digest, commit: Commit | None
) -> Verification | None:
    stores = MemoryStores(views={REFERENCE.repository: shown.store})
    by = replace(judges, stores=stores)
    return _answer(lambda: verify_image(by, REFERENCE.at(digest), Query(commit)))


def _answer(ask: Callable[[], Verification]) -> Verification | None:
    """Return the answer; None where none was given, which is no yes."""
    try:
        return ask()
    except NixSeedError:
        return None


def _false_yes(attack: Attack, name: str, answer: Verification | None) -> bool:
    """Whether *answer* is a yes to anything but all the honest images that were asked about."""
    if answer is None or answer.fate is not Fate.VERIFIED:
        return False
    assert answer.promotion is not None
    of = attack.commit if "any commit" not in name else answer.promotion.commit
    honest: Mapping[str, Digest] = {s: i.digest for s, i in attack.scene.truth[of].items()}
    found = {image.system: image.digest for image in answer.images}
    if name == "commit" or name.startswith("index"):
        return found != honest
    return not found.items() <= honest.items()


def _holds(log: MemoryLog, payload: bytes) -> bool:
    digest = hashlib.sha256(pae(PAYLOAD_TYPE, payload)).digest()
    return next(log.lookup(digest), None) is not None
