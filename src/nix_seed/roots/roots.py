"""What does it finally rest on? A flake's image, its outputs, or an image, followed to the ends."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import msgspec

from nix_seed.core.digests import Digest
from nix_seed.core.errors import InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.files import follow_links
from nix_seed.core.processes import current_system
from nix_seed.core.values import dataclass
from nix_seed.core.words import plural
from nix_seed.flake.nix import Nix
from nix_seed.flake.nix_code import call_nix_half
from nix_seed.flake.provenance import read_provenance, read_signers
from nix_seed.flake.rules.choice import SEED, FlakeChoice, excluded_for
from nix_seed.flake.rules.outline import Context, Project
from nix_seed.flake.rules.recipe import Recipe
from nix_seed.flake.rules.signatures import Signers
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.roots.machine_code import find_machine_code, look_at
from nix_seed.roots.rules import roots as rules
from nix_seed.roots.rules.policy import Binary, Findings, Substituted


@dataclass(frozen=True, slots=True)
class SourceEnd:
    """An end that holds no machine code: *size* in bytes, None where it is not in the store."""

    end: rules.End
    size: int | None


@dataclass(frozen=True, slots=True)
class RootsReport:
    """Ends and what they hold, how many outputs were *built* here, and the roots' *digest*.

    That is None for roots that one store alone knows: another would find other ones.
    """

    roots: rules.Roots
    digest: Digest | None
    findings: Findings
    sources: Sequence[SourceEnd]
    built: int


def roots_of_recipe(nix: Nix, recipe: Recipe) -> rules.Roots:
    """Follow the derivations of an image's recipe; flake inputs' trees are ends of their own."""
    plain = (path for tier in recipe.tiers for path in tier.paths)
    return rules.find_roots(recipe.wanted, nix.read_derivation, plain)


def roots_of_outputs(nix: Nix, flake: str, choice: FlakeChoice = SEED) -> rules.Roots:
    """Follow the derivations of a flake's own outputs, or of the one that is the *choice*."""
    output, system = choice.attr, choice.system or current_system()
    exclude = list(excluded_for(system, choice.exclude))
    url = nix.metadata(flake).url
    doing = f"evaluating the outputs of {flake} for {system}"
    arguments = {"system": system, "name": output, "exclude": exclude}
    project = msgspec.convert(call_nix_half(nix, "ownOutputs", url, arguments, doing), Project)
    kinds = (project.packages, project.apps, project.checks, project.dev_shells)
    contexts: list[Context] = [each.context for kind in kinds for each in kind]
    derivations = {StorePath.parse(path) for context in contexts for path in context}
    if not derivations:
        what = f"output {output}" if output else "outputs"
        raise InputError(
            f"{flake} has no {what} for {system}",
            hint="name another system with --system, or an output such as FLAKE#hello",
        )
    named = (path for path in derivations if path.name.endswith(".drv"))
    return rules.find_roots(named, nix.read_derivation, ())


def roots_of_paths(
    nix: Nix, name: str, paths: Collection[StorePath]
) -> tuple[rules.Roots, tuple[StorePath, ...]]:
    """Follow the derivations that this machine's store knows for the *paths* of the image *name*.

    Returns also the paths of which nobody here knows where they come from.
    """
    known = read_provenance(nix, paths)
    derivers, plain, unknown = set(), [], []
    for path in paths:
        info = known.get(path)
        deriver = None if info is None else info.deriver
        if deriver is not None and nix.at(deriver).is_file():
            derivers.add(deriver)
        elif info is not None and info.addressed:
            plain.append(path)
        else:
            unknown.append(path)
    if len(unknown) == len(paths):
        raise InputError(
            f"this machine's store knows none of the derivations behind {name}",
            hint="name the flake that the image was built from: nix-seed roots FLAKE",
        )
    found = rules.find_roots(derivers, nix.read_derivation, plain)
    return replace(found, evaluated=False), tuple(unknown)


def report_roots(nix: Nix, roots: rules.Roots, unknown: Sequence[StorePath] = ()) -> RootsReport:
    """Look at every end in the store, and ask Nix where what was built comes from.

    Raises ``CouldNotCheck`` where something that is there cannot be read.
    """
    tell(
        Stage(
            "look",
            f"looking into {plural(len(roots.ends), 'file or tree', 'files and trees')}",
            len(roots.ends),
        )
    )
    builders = _Builders(nix, roots)
    look = _Look(nix, builders.files)
    for end in roots.ends:
        look.at(end)
    tell(Stage("provenance", f"asking Nix about {plural(len(roots.makers), 'output')}"))
    known = read_provenance(nix, roots.makers)
    signers = read_signers(nix, known)
    substituted = [
        Substituted(path, signers.get(path, Signers()))
        for path, info in known.items()
        if not info.ultimate and not info.addressed
    ]
    findings = Findings(
        executed=look.executed,
        binaries=look.binaries,
        unseen=look.unseen,
        unknown=unknown,
        substituted=substituted,
        absent=sorted(roots.makers.keys() - known.keys()),
        host=builders.host,
        unread=builders.unread,
        impure=roots.impure,
    )
    built = sum(info.ultimate for info in known.values())
    digest = rules.roots_digest(roots) if roots.evaluated else None
    return RootsReport(roots, digest, findings, look.sources, built)


class _Builders:
    """Follows builders to what is started in the end: by links, first lines of scripts, loaders.

    *files* are those of ends that are executed so, *host* all programs of the building machine,
    *unread* the builders that are not in the store.
    """

    def __init__(self, nix: Nix, roots: rules.Roots) -> None:
        self.host = list(roots.host)
        self.unread: list[str] = []
        self.files: dict[StorePath, list[str]] = {}
        self._nix = nix
        self._ends = {end.path for end in roots.ends}
        self._given = self._ends | roots.makers.keys()
        seen = {item.program for item in roots.host}
        left = sorted(roots.builders.items(), reverse=True)
        while left:
            program, user = left.pop()
            if program not in seen:
                seen.add(program)
                left += [(after, user) for after in self._follow(program, user)]

    def _follow(self, program: str, user: StorePath) -> Iterator[str]:
        """Take *program* in; yield what is started in its place."""
        path = rules.store_path_of(program)
        if path not in self._given:
            self.host.append(rules.HostProgram(program, user))
            return
        real = follow_links(self._nix.root, program)
        if real is not None and real != program:
            yield real
            return
        file = self._nix.at(program)
        found = None if real is None else look_at(file, self._nix.root)
        if found is None:
            self.unread.append(program)
        elif found.interpreter:
            yield found.interpreter
        if path in self._ends:
            self.files.setdefault(path, []).append(program[len(str(path)) + 1 :])


_READ = ("text", "script", "data")  # by whoever is executed, where it is an argument


class _Look:
    """Sorts ends by what they hold; *files* of them are executed beside those that they know."""

    def __init__(self, nix: Nix, files: Mapping[StorePath, Sequence[str]]) -> None:
        self._nix = nix
        self._files = files
        self.executed: list[Binary] = []
        self.binaries: list[Binary] = []
        self.unseen: list[StorePath] = []
        self.sources: list[SourceEnd] = []
        self._look_at = cache(look_at)

    def at(self, end: rules.End) -> None:
        if self._at_executed(end):
            return
        found = find_machine_code(self._nix.at(end.path))
        if found is None or found.holds is None:
            self.unseen.append(end.path)
        if found is not None and found.holds:
            form = "archive" if found.inside else "file"
            self.binaries.append(
                Binary(*(end.path, "", found.size, None, form, found.inside, end.urls, end.used_by))
            )
        else:
            self.sources.append(SourceEnd(end, None if found is None else found.size))

    def _at_executed(self, end: rules.End) -> bool:
        """Take in the files of *end* that are executed; tell whether there are any.

        A text among the arguments is read by whoever is executed, and is a source like another. Of
        an end that is not here nobody knows what it holds.
        """
        top = self._nix.at(end.path)
        there = os.path.lexists(top)
        started = [(name, "builder") for name in self._files.get(end.path, ())]
        seen = set()
        for name, use in dict.fromkeys([*end.files, *started]):
            file = self._look_at(top / name, top)
            if file is None:
                if use != "builder" and there:
                    continue
                binary = Binary(end.path, name, None, None, None)
            elif file.digest in seen or (use == "argument" and file.form in _READ):
                continue
            else:
                seen.add(file.digest)
                binary = Binary(end.path, name, file.size, file.digest, file.form)
            self.executed.append(replace(binary, urls=end.urls, used_by=end.used_by))
        return bool(seen or started) or end.use == "builder" or (bool(end.files) and not there)
