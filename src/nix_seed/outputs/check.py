"""What do builders say of a commit's outputs, and in what do they differ?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from nix_seed.core.errors import NixSeedError
from nix_seed.core.events import Stage, tell
from nix_seed.formats.intoto.statement import Commit
from nix_seed.image.diffoscope import diffoscope_at_hand
from nix_seed.outputs.compare import compare_nars, nars_of, show_nars
from nix_seed.outputs.rules.agreed import Question, SetAside, Word
from nix_seed.outputs.rules.findings import OutputFinding, OutputsReport, evaluate_outputs
from nix_seed.outputs.rules.statement import outputs_subject
from nix_seed.outputs.words import WordReader
from nix_seed.registry.open import AnyReference
from nix_seed.registry.store import ImageStore
from nix_seed.release.verifiers import Verifiers
from nix_seed.trust.attestations import gather, troubles_of

_MOST_COMPARED: Final = 8


def check_outputs(
    by: Verifiers, places: Sequence[AnyReference], commit: Commit, system: str | None = None
) -> OutputsReport:
    """Return what the builders of the policy say of *commit*'s outputs, by what lies in *places*.

    Where a difference begins, its files are compared. Never raises for what a store says.
    """
    stores = [by.stores.open(each) for each in places]
    tell(Stage("outputs", f"looking for what builders say of {commit}"))
    found = gather(stores, [outputs_subject(commit).digest])
    asked = Question(commit, system)
    heard = WordReader(by).hear(found.attestations, asked=asked)
    words: dict[str, list[Word]] = {} if system is None else {system: []}
    for word in heard.words:
        words.setdefault(word.system, []).append(word)
    aside = [SetAside("", reason) for reason in found.lies]
    unread = [each.reason for each in troubles_of(found)]
    report = evaluate_outputs(
        by.policy,
        commit,
        words,
        (*aside, *heard.set_aside),
        (*unread, *heard.unchecked),
        (*found.lies, *heard.lies),
    )
    begins = [each for each in report.outputs if each.begins][:_MOST_COMPARED]
    compared = {each: _compared(stores, each) for each in begins}
    return replace(report, outputs=tuple(compared.get(each, each) for each in report.outputs))


def _compared(stores: Sequence[ImageStore], found: OutputFinding) -> OutputFinding:
    one, other = (each.nar_hash for each in found.answers[:2])
    if one == other:
        return replace(found, unread="the NARs are equal: builders state other references of it")
    tell(Stage("outputs", f"comparing the files of {found.label}"))
    try:
        found = replace(found, files=compare_nars(stores, found.path, one, other))
        program = diffoscope_at_hand()
        if program is None:
            return found
        shown = show_nars(program, *nars_of(stores, found.path, one, other))
        return replace(found, diffoscope=shown)
    except NixSeedError as error:
        return replace(found, unread=error.message)
