"""Which paths of an image may be passed on; those that may not are left out of it.

Nix is asked what ``meta`` says of derivations, wherever it can be read; a source tree states its
licence in a LICENSE or COPYING file of its own. Files that are also in a tree that must not be
passed on are found as copies, whatever they are called. Short files, and the texts of licences,
which free and other works share, are no evidence.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from nix_seed.core.errors import CheckedFalse, CouldNotCheck, NixFailed
from nix_seed.core.files import files_below
from nix_seed.core.reach import reach
from nix_seed.core.values import dataclass
from nix_seed.flake.evaluate import Evaluation
from nix_seed.flake.nix import Nix
from nix_seed.flake.nix_code import call_nix_half
from nix_seed.flake.rules import licence
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.formats.nix.store_path import PathInfo, StorePath, closure_in
from nix_seed.licences.rules.judge import Judged, Judgement, UnknownLicence, Withheld, judge
from nix_seed.roots.roots import roots_of_recipe
from nix_seed.roots.rules.roots import Inputs, Roots

LEAST = 256
"""Shorter files, in bytes, are not compared."""

# Longer ones hold more than licences. And what no text holds, in whatever encoding.
_LONGEST = 1 << 20
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

# LICENSE, LICENSE-MIT, COPYING.LESSER, LICENSE_1_0.txt, NOTICE.md; not licensed, nor license.py.
_LICENCE = re.compile(
    r"((un)?licen[cs]es?|copying|copyrights?|notices?|authors)"
    r"[0-9]*([-_ ][a-z0-9_+ -]*(\.[0-9][a-z0-9_+-]*)*)?"
    r"(\.(lesser|lib|[al]?gpl|(?-i:[A-Z][A-Za-z0-9_+-]*)))?"
    r"(\.(txt|text|md|markdown|rst|adoc|html?))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Copy:
    """*file* in *path* has the bytes of *original*, a file of the withheld path *of*."""

    path: StorePath
    file: str
    of: StorePath
    original: str


def find_copies(
    root: Path,
    withheld: Iterable[StorePath],
    among: Iterable[StorePath],
    holds: Callable[[StorePath, StorePath], bool],
) -> list[Copy]:
    """Look for files of *withheld* in each path of *among*, but not for what it *holds* itself.

    *holds* tells of a path and a withheld one whether this may have the file from that. It is asked
    of what was found only. *root* is where the store's ``/nix`` lies. One copy a path is enough.
    """
    originals: dict[int, list[tuple[StorePath, str, str]]] = {}
    for path in withheld:
        for name, size in _files(root, path):
            originals.setdefault(size, []).append((path, _below(name, root, path), name))
    hashes: dict[str, bytes] = {}
    found = []
    for path in among if originals else ():
        copies = _copies_below(root, path, originals, hashes)
        found += [next((copy for copy in copies if not holds(path, copy.of)), None)]
    return [copy for copy in found if copy is not None]


def _copies_below(
    root: Path,
    path: StorePath,
    originals: Mapping[int, list[tuple[StorePath, str, str]]],
    hashes: dict[str, bytes],
) -> Iterator[Copy]:
    for name, size in _files(root, path):
        for of, original, file in originals.get(size, ()):
            if _hash(name, hashes) == _hash(file, hashes):
                yield Copy(path, _below(name, root, path), of, original)


def _hash(name: str, hashes: dict[str, bytes]) -> bytes:
    if name not in hashes:
        with open(name, "rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").digest()
    return hashes[name]


def _files(root: Path, path: StorePath) -> Iterator[tuple[str, int]]:
    top = f"{root}{path}" if str(root) != "/" else str(path)
    try:
        for name in files_below(top):
            size = os.lstat(name).st_size
            if size >= LEAST and not _is_licence_text(name, size):
                yield name, size
    except OSError as error:
        raise CouldNotCheck(f"cannot read {path}: {error.strerror}") from error


def _is_licence_text(name: str, size: int) -> bool:
    if size > _LONGEST or _LICENCE.fullmatch(os.path.basename(name)) is None:
        return False
    with open(name, "rb") as file:
        content = file.read()
    return not content.startswith(b"#!") and _CONTROL.search(content) is None


def _below(name: str, root: Path, path: StorePath) -> str:
    return os.path.relpath(name, f"{root}{path}" if str(root) != "/" else str(path))


_FILE = re.compile(r"(un)?licen[cs]e|copying", re.IGNORECASE)
_MOST = 1 << 20
# What only that licence says, all in one line; the first that matches.
_WORDS = (
    ("AGPL-3.0-only", r"GNU AFFERO GENERAL PUBLIC LICENSE Version 3"),
    ("LGPL-3.0-only", r"GNU LESSER GENERAL PUBLIC LICENSE Version 3"),
    ("LGPL-2.1-only", r"GNU LESSER GENERAL PUBLIC LICENSE Version 2\.1"),
    ("GPL-3.0-only", r"GNU GENERAL PUBLIC LICENSE Version 3"),
    ("GPL-2.0-only", r"GNU GENERAL PUBLIC LICENSE Version 2"),
    ("Apache-2.0", r"Apache License,? Version 2\.0"),
    ("MPL-2.0", r"Mozilla Public License,? Version 2\.0"),
    ("EUPL-1.2", r"European Union Public Licence v\. ?1\.2"),
    ("CC0-1.0", r"CC0 1\.0 Universal"),
    ("Unlicense", r"This is free and unencumbered software released into the public domain"),
    ("ISC", r"Permission to use, copy, modify, (and/or|and) distribute this software for any"),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
    (
        "BSD-3-Clause",
        r"Redistribution and use in source and binary forms.*(Neither the name|may not be used to"
        r" endorse)",
    ),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
)


def read_licence_texts(tree: Path) -> licence.Licence:
    """Return the licence that the files at the top of *tree* state; all of them apply."""
    try:
        files = sorted(file for file in tree.iterdir() if _FILE.match(file.name))
        found = [_recognise(file) for file in files if file.is_file() and not file.is_symlink()]
    except OSError:
        return licence.UNSTATED
    return licence.join(found) if found else licence.UNSTATED


def _recognise(file: Path) -> licence.Licence:
    with file.open("rb") as stream:
        text = " ".join(stream.read(_MOST).decode("utf-8", "replace").split())
    for name, words in _WORDS:
        if re.search(words, text, re.IGNORECASE):
            return licence.Licence(name, licence.evaluate_expression(name))
    return licence.Licence(f"see {file.name}", "unknown")


# A dozen tell one broken package from some hundred others.
_EVALUATIONS = 12


def _unread(
    facts: Mapping[str, licence.Fact], closure: Iterable[StorePath], roots: Roots
) -> set[StorePath]:
    """Return what makes *closure* and is in none of *facts*, and such of its inputs."""
    unread: set[StorePath] = set()
    stack = [roots.makers[path] for path in closure if path in roots.makers]
    while stack:
        drv = stack.pop()
        if drv in roots.inputs and drv not in unread and str(drv) not in facts:
            unread.add(drv)
            stack += roots.inputs[drv].derivations
    return unread


def _facts(
    nix: Nix, url: str, arguments: Mapping[str, Any], names: Sequence[str]
) -> tuple[dict[str, licence.Fact], str | None]:
    """Return what ``meta`` says, by derivation, and why something could not be read, if so.

    *arguments* are those by which the flake at *url* was evaluated. Where some package's own code
    aborts, less is asked for, at last nothing.
    """
    problem = None
    for wanted in (names, ()):
        try:
            given = {**arguments, "names": list(wanted)}
            answer = call_nix_half(nix, "licences", url, given, "reading licences")
            return licence.read_facts(answer), problem
        except NixFailed as error:
            problem = error.detail or error.message
    return {}, problem


def _facts_elsewhere(
    nix: Nix, url: str, system: str, unread: Iterable[StorePath], roots: Roots
) -> dict[str, licence.Fact]:
    """Look for *unread* among the packages of all flakes that there are, for a few evaluations.

    What does not evaluate is left out, and so is what is not of this graph: a namesake.
    """
    made = {StorePath(drv.base_name.removesuffix(".drv")) for drv in unread}
    names = sorted({name for path in made for name in (path.package, path.name)})
    given = {"system": system, "names": names}
    ask = partial(call_nix_half, nix, "otherPackages", url, doing="reading licences elsewhere")
    facts: dict[str, licence.Fact] = {}
    left: list[list[Any]] = []
    for evaluation in range(_EVALUATIONS):
        some = left.pop() if left else []
        try:
            if evaluation == 0:
                left = [ask(given)]
            elif some:
                facts |= licence.read_facts(ask({**given, "some": some}))
        except NixFailed:
            half = len(some) // 2
            left += [some[half:], some[:half]] if half else []
    graph = {str(drv) for drv in roots.via}
    return {drv: fact for drv, fact in facts.items() if drv in graph}


Tiers = Sequence[tuple[str, Sequence[StorePath]]]


@dataclass(frozen=True, slots=True)
class Licences:
    """What was judged, by which *policy*; *problem* is why ``meta`` could not be read at all."""

    judgement: Judgement
    policy: licence.LicencePolicy
    roots: Roots
    problem: str | None = None


def assess_licences(
    nix: Nix, evaluation: Evaluation, attr: str | None, paths: Iterable[StorePath]
) -> Licences:
    """Judge *paths*, the closure of the image that *evaluation* is the recipe of.

    Broken ``meta`` never fails a build: what it says is then unknown.
    """
    outline = evaluation.recipe.outline
    closure = sorted(set(paths))
    names = sorted({name for path in closure for name in (path.package, path.name)})
    url = evaluation.flake.url
    chosen = FlakeChoice(outline.kind, attr, outline.system, outline.excluded)
    arguments = chosen.arguments(outline.system)
    # The graph is followed while Nix evaluates.
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(copy_context().run, _facts, nix, url, arguments, names)
        roots = roots_of_recipe(nix, evaluation.recipe)
        facts, problem = asked.result()
    # What is no value anywhere in the flake is looked for among the packages of all that it has.
    if unread := _unread(facts, closure, roots):
        facts |= _facts_elsewhere(nix, url, outline.system, unread, roots)
    trees = {}
    for name, text in outline.inputs.items():
        tree = StorePath.containing(text)
        trees[tree] = (name, read_licence_texts(nix.at(tree)))
    judgement = judge(closure, roots, facts, trees, outline.licences)
    return Licences(judgement, outline.licences, roots, problem)


def check_contents(nix: Nix, licences: Licences) -> None:
    """Raise ``CheckedFalse`` where a path that may be passed on holds what may not.

    By its own word (it is built from a source that another package withholds) or by its bytes (a
    file of it is a file of a withheld path, which did not take it from there).
    """
    judgement = licences.judgement
    problems = [
        f"{item.path} may be passed on by its own word, but is built from {item.fetched}, whose"
        f" licence is {item.licence}" + "".join(f", says {other}" for other in item.others[:1])
        for item in judgement.conflicts
    ]
    withheld = (*judgement.withheld, *judgement.withheld_elsewhere)
    if withheld:
        problems += _copies(nix, licences, withheld)
    if problems:
        raise CheckedFalse(
            f"{len(problems)} of the image's paths hold what may not be passed on",
            detail="\n".join(problems),
            hint='withhold them too: mkSeed { licences.withhold = [ "name" ]; }, or, if you may'
            " pass them on, name them in licences.accept",
        )


def _copies(nix: Nix, licences: Licences, withheld: Sequence[Judged]) -> list[str]:
    ancestry = Ancestry(licences.roots, withheld)
    among = [
        item.path
        for item in licences.judgement.paths.values()
        if item.licence.status != "withheld" and not item.accepted
    ]
    here = [item.path for item in withheld if nix.at(item.path).exists()]
    return [
        f"{copy.path}: {copy.file} is {copy.original} of {copy.of}"
        for copy in find_copies(nix.root, here, among, ancestry.holds)
    ]


class Ancestry:
    """What *withheld* paths are built from, however far back."""

    def __init__(self, roots: Roots, withheld: Iterable[Judged]) -> None:
        self._inputs = roots.inputs
        self._derivations = {item.path: item.derivation for item in withheld}
        self._makers = {end.path: end.derivations for end in roots.ends}
        self._makers |= {path: (drv,) for path, drv in roots.makers.items()}
        # Few at a time: each may be most of the graph.
        self._built_from = lru_cache(maxsize=16)(self._walk)

    def holds(self, path: StorePath, withheld: StorePath) -> bool:
        """Whether *withheld* is built from *path*, and so may have its files from there."""
        drv = self._derivations[withheld]
        return drv is not None and not self._built_from(drv).isdisjoint(
            (path, *self._makers.get(path, ()))
        )

    def _walk(self, derivation: StorePath) -> set[StorePath]:
        found: set[StorePath] = set()
        stack = [derivation]
        while stack:
            inputs = self._inputs.get(stack.pop(), Inputs())
            new = [drv for drv in inputs.derivations if drv not in found]
            found.update(new, inputs.files)
            stack += new
        return found


def leave_out(
    closure: Mapping[StorePath, PathInfo], tiers: Tiers, judgement: Judgement
) -> tuple[dict[StorePath, PathInfo], Tiers]:
    """Return *closure* and *tiers* without what is withheld; references to it stay.

    What a withheld root refers to takes its place: the consumer needs it all the same.
    """
    withheld = {item.path for item in judgement.withheld}
    if not withheld:
        return dict(closure), tiers
    kept = {path: info for path, info in closure.items() if path not in withheld}
    left = [(name, _replaced(roots, closure, withheld)) for name, roots in tiers]
    # What only a withheld path that is no root refers to belongs where that path was needed.
    reached = closure_in(kept, [root for _, roots in left for root in roots])
    name, last = left[-1]
    below = {ref for path in withheld for ref in closure[path].references} - withheld - reached
    return kept, [*left[:-1], (name, sorted({*last, *below}))]


def _replaced(
    roots: Sequence[StorePath],
    closure: Mapping[StorePath, PathInfo],
    withheld: set[StorePath],
) -> list[StorePath]:
    found = reach(roots, lambda path: closure[path].references if path in withheld else ())
    return sorted(found - withheld)


def closed(closure: Mapping[StorePath, PathInfo]) -> dict[StorePath, PathInfo]:
    """Return *closure* with only the references inside it, as layers are divided by."""
    return {
        path: replace(info, references=tuple(r for r in info.references if r in closure))
        for path, info in closure.items()
    }


def withheld_entries(judgement: Judgement) -> tuple[Withheld, ...]:
    """Return what the spec lists: each path left out, with name, licence, derivation and URL."""
    return tuple(
        Withheld(
            path=item.path,
            name=item.path.name,
            licence=item.licence.name,
            derivation="" if item.derivation is None else str(item.derivation),
            url=item.url,
        )
        for item in judgement.withheld
    )


def unknown_entries(licences: Licences) -> tuple[UnknownLicence, ...]:
    """Return what the spec lists as of unknown licence; none where the policy lets that pass."""
    if licences.policy.unknown == "report":
        return ()
    return tuple(
        UnknownLicence(item.path, item.licence.name) for item in licences.judgement.unknown
    )
