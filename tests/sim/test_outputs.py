"""Every power against the outputs: what an adversary gets taken, by ``own`` and by ``quorum``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import pytest

from nix_seed.core.digests import Digest, NarHash
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.logs.log import Log
from nix_seed.outputs.rules.agreed import Served
from nix_seed.outputs.rules.statement import OutputFact, OutputsStatement
from nix_seed.outputs.sign import sign_outputs
from nix_seed.outputs.words import WordReader
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import Attestation
from nix_seed.trust.rules.policy import OutputsRule
from nix_seed.trust.sign import KeySigner
from sim.scene import NOW, SOURCE, SYSTEMS, Cast, Terms
from sim.transports import MemoryLog

COMMIT, OTHER = Commit("c0ffee" + "0" * 34), Commit("badbad" + "0" * 34)
PATH = StorePath(f"{'a' * 32}-tool-1.0")
TRUE = OutputFact(PATH, NarHash("1" * 64), 120, ())
FALSE = replace(TRUE, nar_hash=NarHash("6" * 64))
UNCLOSED = replace(TRUE, references=(StorePath(f"{'b' * 32}-backdoor"),))
TERMS = [
    Terms(builders, threshold, 1, 1, 1, 1)
    for builders in (1, 2, 3)
    for threshold in range(1, builders + 1)
]
RULES: tuple[OutputsRule, ...] = ("own", "quorum", "none")


@dataclass(frozen=True, slots=True)
class Stage:
    """*stolen* builders' keys are the adversary's, the others are honest; who *spoke* has said."""

    cast: Cast
    log: MemoryLog
    stolen: tuple[str, ...]
    honest: tuple[str, ...]

    def say(
        self, who: str, fact: OutputFact, key: KeySigner | None = None, **changes: object
    ) -> list[Attestation]:
        """What *who* states of *fact*, in the log, signed with *key*."""
        said = OutputsStatement(
            SOURCE, COMMIT, SYSTEMS[0], Digest("5" * 64), who, "2026-05-01T00:00:00Z", (fact,)
        )
        logs: list[Log] = [] if changes.pop("unlogged", False) else [self.log]
        whole = replace(said, **changes)  # type: ignore[arg-type]
        signer = key or self.cast.builders[who]
        signed = sign_outputs(whole, signer, logs)
        return [Attestation("here", bundle) for each in signed for bundle in each.bundles]

    def stolen_say(self, fact: OutputFact, **changes: object) -> list[Attestation]:
        """All stolen keys say the same."""
        return [each for who in self.stolen for each in self.say(who, fact, None, **changes)]


def _poison(stage: Stage) -> list[Attestation]:
    return stage.stolen_say(FALSE)


def _false_references(stage: Stage) -> list[Attestation]:
    return stage.stolen_say(UNCLOSED)


def _of_another_commit(stage: Stage) -> list[Attestation]:
    return stage.stolen_say(FALSE, commit=OTHER)


def _without_a_log(stage: Stage) -> list[Attestation]:
    return stage.stolen_say(FALSE, unlogged=True)


def _of_a_fork(stage: Stage) -> list[Attestation]:
    return stage.stolen_say(FALSE, source="https://forge.example/fork")


def _in_every_name(stage: Stage) -> list[Attestation]:
    keys = [stage.cast.builders[who] for who in stage.stolen] or [stage.cast.stranger]
    names = [*stage.cast.builders, "stranger"]
    return [each for key in keys for who in names for each in stage.say(who, FALSE, key)]


def _again_and_again(stage: Stage) -> list[Attestation]:
    return [*_poison(stage), *stage.stolen_say(FALSE, finished_on="2026-05-02T00:00:00Z")]


def _both(stage: Stage) -> list[Attestation]:
    return [*stage.stolen_say(TRUE), *_poison(stage)]


PLANS: tuple[Callable[[Stage], list[Attestation]], ...] = (
    _poison,
    _false_references,
    _of_another_commit,
    _without_a_log,
    _of_a_fork,
    _in_every_name,
    _again_and_again,
    _both,
)


@cache
def _cast(terms: Terms) -> Cast:
    return Cast(terms)


def _views(
    honest: list[Attestation], false: list[Attestation], registry: bool
) -> Iterator[list[Attestation]]:
    """What the victim may be shown: all of it, or what an adversary's registry leaves."""
    yield [*honest, *false]
    yield [*false, *honest]
    if registry:
        yield false
        yield []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.slow
def test_what_is_taken_is_what_the_policy_stands_for(terms: Terms, rule: OutputsRule) -> None:
    cast = _cast(terms)
    policy = replace(cast.policy, outputs=rule)
    log = MemoryLog("log-0", cast.log_keys["log-0"])
    names = tuple(cast.builders)
    reader = WordReader(Verifiers(policy, NOW))
    got_through = 0
    for number, plan, registry in product(range(len(names) + 1), PLANS, (False, True)):
        stage = Stage(cast, log, names[:number], names[number:])
        honest = [each for who in stage.honest for each in stage.say(who, TRUE)]
        for view in _views(honest, plan(stage), registry):
            found = reader.decide(PATH, view)
            if not isinstance(found, Served) or found.fact == TRUE:
                continue
            got_through += 1
            if rule == "own":
                assert number >= 1, plan
            else:
                assert rule == "quorum"
                # A false output takes as many builders as the policy wants, and no honest word.
                assert number >= terms.threshold, plan
                assert registry or not stage.honest, plan
    # Who holds enough keys does get through: else this would test nothing.
    assert (got_through > 0) == (rule != "none")


@pytest.mark.parametrize("terms", TERMS, ids=str)
def test_below_the_threshold_nobody_blocks_ones_own(terms: Terms) -> None:
    cast = _cast(terms)
    names = tuple(cast.builders)
    reader = WordReader(Verifiers(replace(cast.policy, outputs="own"), NOW))
    for number, plan in product(range(len(names)), PLANS):
        log = MemoryLog("log-0", cast.log_keys["log-0"])
        stage = Stage(cast, log, names[:number], names[number:])
        honest = [each for who in stage.honest for each in stage.say(who, TRUE)]
        found = reader.decide(PATH, [*plan(stage), *honest])
        assert isinstance(found, Served), plan
        if len(stage.honest) > number:
            assert found.fact == TRUE, plan
