"""Which outputs of a commit are promoted, and which one a promoted name stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from nix_seed.core.digests import Digest
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import Commit
from nix_seed.outputs.rules.agreed import NotServed, Question, agreed
from nix_seed.outputs.rules.statement import outputs_subject
from nix_seed.outputs.words import WordReader
from nix_seed.registry.open import AnyReference
from nix_seed.release.records import find_outputs_of
from nix_seed.release.rules.answer import Verification
from nix_seed.release.rules.tree import OutputLeaf, ReleasedOutputs
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import gather, troubles_of

_HINT: Final = "see who says what: nix-seed outputs check"


def choose_outputs(
    by: Verifiers, places: Sequence[AnyReference], commit: Commit, seeds: Mapping[str, Digest]
) -> tuple[ReleasedOutputs, tuple[str, ...]]:
    """Return the outputs of *commit* that a quorum built in *seeds*, and why others are left out.

    Only logged words count. ``CheckedFalse`` where no output has a quorum, ``CouldNotCheck`` where
    something cannot be read that may be a dissent.
    """
    policy = replace(by.policy.logged, outputs="quorum")
    found = gather([by.stores.open(each) for each in places], [outputs_subject(commit).digest])
    unread = [each.reason for each in troubles_of(found)] + list(found.lies)
    leaves: list[OutputLeaf] = []
    left: list[str] = []
    reader = WordReader(replace(by, policy=policy))
    for system, seed in sorted(seeds.items()):
        heard = reader.hear(found.attestations, asked=Question(commit, system, seed))
        for reason in (*unread, *heard.unchecked):
            raise CouldNotCheck(f"the outputs of {commit} are not promoted: {reason}", hint=_HINT)
        for path in sorted({word.fact.path for word in heard.words}):
            decided = agreed(path, heard.words, policy)
            if isinstance(decided, NotServed):
                left.append(f"{path} for {system}: {decided.reason}")
                continue
            said = [set(word.fact.names) for word in heard.words if word.fact.path == path]
            common = tuple(sorted(set.intersection(*said)))
            leaves.append(OutputLeaf(system, path, commit, decided.nar_hash, common))
    if not leaves:
        raise CheckedFalse(
            f"no output of {commit} has a quorum", detail="\n".join(left[:20]), hint=_HINT
        )
    return ReleasedOutputs(tuple(sorted(leaves))), tuple(left)


def promoted_output(
    by: Verifiers,
    places: Sequence[AnyReference],
    found: Verification,
    name: str,
    system: str,
) -> tuple[OutputLeaf, ReleasedOutputs]:
    """Return the output *name* that the commit verified as *found* was promoted with, and all.

    Raises as ``find_outputs_of`` does, and where the commit itself does not verify.
    """
    record = None if found.promotion is None else found.promotion.record
    if found.fate is not Fate.VERIFIED or record is None:
        raise found.fate.error(f"the output {name} is not verified: {found.reason}")
    stores = [by.stores.open(each) for each in places]
    released = find_outputs_of(stores, record)
    return released.named(name, system), released
