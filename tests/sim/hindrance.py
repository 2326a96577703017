"""Honest releases against those who are in the way: every plan of ``sim.liars``, played out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nix_seed.core.errors import NixSeedError
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import Commit
from sim.episodes import before, fast_directory, questions, remembering
from sim.liars import BY_LOGS, BY_PROMOTERS, BY_REGISTRY, Plan
from sim.scene import SYSTEMS, Scene, Terms
from sim.strategies import Attack, Power, Shown

__all__ = ["Hindrance", "every_hindrance", "may_block", "releases_despite"]

_SECOND_RELEASES = ("another root", "another index")
_CAUGHT = ("logs that answer writers falsely", "logs that take back what they took")


@dataclass(frozen=True, slots=True)
class Hindrance:
    """A *plan*, by so many *promoters* who lie.

    *logs* lie where the plan is one of logs. Else they are away once the honest promoters come.
    """

    terms: Terms
    plan: str
    promoters: int
    logs: int

    @property
    def by(self) -> str:
        """Who is in the way."""
        if self.plan in BY_LOGS:
            return "logs"
        return "promoters" if self.plan in BY_PROMOTERS else "registry"


def every_hindrance(terms: Terms) -> Iterator[Hindrance]:
    """Every plan, by as many as the policy can do without."""
    promoters, logs = terms.promoters - terms.wanted, terms.logs - terms.needed
    for away in range(logs + 1):
        for plan in BY_PROMOTERS:
            yield from (Hindrance(terms, plan, lying, away) for lying in range(1, promoters + 1))
        yield from (Hindrance(terms, plan, 0, away) for plan in BY_REGISTRY)
    for plan in BY_LOGS:
        yield from (Hindrance(terms, plan, 0, lying) for lying in range(1, logs + 1))


def may_block(case: Hindrance) -> bool:
    """Whether it does, by design: a log that is caught, or promoters enough for another release."""
    enough = case.promoters >= case.terms.wanted
    return case.plan in _CAUGHT or (enough and case.plan in _SECOND_RELEASES)


def releases_despite(case: Hindrance) -> bool:
    """Whether the commit is released, and verifies, when each honest promoter had one turn.

    There are just as many of them as must sign. The victim asks the logs, too.
    """
    scene, commit, old = _scene(case)
    attack = Attack(scene, Power(0, 0, case.promoters, registry=False), commit, old)
    hinder: Plan = {**BY_PROMOTERS, **BY_REGISTRY}.get(case.plan, lambda attack: None)
    shown = Shown(scene.store, scene.logs)
    honest = list(scene.cast.promoters)[case.promoters :][: case.terms.wanted]
    with TemporaryDirectory(dir=fast_directory()) as directory:
        try:
            scene.attest(scene.cast.builders, scene.images(commit), commit)
            for who in honest:
                hinder(attack)
                _leave(case, scene)
                judges = remembering(scene, shown, Path(directory) / who)
                scene.promote(who, commit, judges=judges)
            hinder(attack)
        except NixSeedError:
            return False
        return _verifies(attack, shown, Path(directory) / "victim")


def _scene(case: Hindrance) -> tuple[Scene, Commit, Commit]:
    """Two releases, one after the other, and a commit that is to be the next."""
    first, commit, old = before(case.terms, False)
    scene = first.copy()
    scene.release(scene.commit("a second old commit"))
    if case.plan in BY_LOGS:
        lying = BY_LOGS[case.plan]
        scene.logs[: case.logs] = [lying.of(log) for log in scene.logs[: case.logs]]
    return scene, commit, old


def _leave(case: Hindrance, scene: Scene) -> None:
    if case.plan not in BY_LOGS:
        for log in scene.logs[: case.logs]:
            log.down = True


def _verifies(attack: Attack, shown: Shown, memory: Path) -> bool:
    """Whether the commit does, and each system of it; a tag is the registry's to move."""
    asked = questions(attack, shown, remembering(attack.scene, shown, memory))
    answers = [answer for name, answer in asked if name.startswith("commit")]
    assert len(answers) == 1 + len(SYSTEMS)
    return all(answer is not None and answer.fate is Fate.VERIFIED for answer in answers)
