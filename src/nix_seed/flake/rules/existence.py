"""What Nix code asks of files without reading them: are they there, what is in a directory?

To alter what files hold (``alter.py``) does not show that. So one more tree is evaluated, in which
the files that are asked for by name are gone, or there, and each directory has more files and
directories, called like those in it, and like what code looks for in lists.
"""

import posixpath
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nix_seed.formats.nix.store_path import Derivation, Graph, StorePath

# A literal or a variable, and what follows: ./x, (./. + "/x"), "${self}/x", (self + "/x").
_ASKED = re.compile(
    r"""\bpathExists\b\s*\(*\s*(?:
        (?P<literal>\.{1,2}(?:/[\w.+-]+)+)
      | "?\$\{\s*(?P<quoted>\.{1,2}(?:/[\w.+-]+)+)\s*\}
      | "?\$\{[\w.]+\} | [\w.]+
    )\s*\+?\s*"?(?P<rest>(?:/[\w.+-]+)*)""",
    re.VERBOSE,
)
_LISTS = re.compile(r"\b(readDir|readFileType|listFilesRecursive|packagesFromDirectoryRecursive)\b")
_REVISION = re.compile(
    r"""\?\s*"?(rev|shortRev|dirtyRev|dirtyShortRev|revCount)\b|\bhasAttr\s*"(rev|shortRev)\""""
)
# ".sheet", as in hasSuffix, and [.]sheet or \\.sheet at a pattern's end.
_KIND = re.compile(r'(?:"\.|\[\.\]|\\\\\.)([A-Za-z0-9]{1,16})\$?"')
# A name's beginning, as in hasPrefix, and the types that readDir tells.
_START = re.compile(r'\bhasPrefix\s+"([A-Za-z0-9_.-]{1,32})"')
_FOLDERS = re.compile(r'"directory"')
# A test of names by what no literal says, or by a pattern that is more than an ending.
_TESTS = re.compile(
    r'\bhas(?:Prefix|Suffix|Infix)\s+(?!")[\w($]|\bhasInfix\b|\b(?:match|split)\s+(?!"\.\*(?:\[\.\]|\\\\\.)\w+\$?")'
)
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_KEPT = {"flake.nix", "flake.lock", ".git", "", ".", ".."}


@dataclass(frozen=True, slots=True)
class Questions:
    """What the Nix code of a flake asks of its own files.

    *paths* are asked for by name, below the flake's root; *lists* and *revision* tell whether
    directories are listed, and whether there is a commit. *unclear* are places, ``file:line``,
    that ask for what no text names. *kinds* and *starts* are the endings and beginnings of names
    that code looks for in lists, *folders* tells whether it looks for directories; *tests* are
    places that choose from a list in other ways.
    """

    paths: frozenset[str] = frozenset()
    lists: bool = False
    revision: bool = False
    unclear: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    starts: frozenset[str] = frozenset()
    folders: bool = False
    tests: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is asked that another tree can answer otherwise."""
        return bool(self.paths) or self.lists or self.revision


def find_questions(code: Mapping[str, str]) -> Questions:
    """Read the text of ``.nix`` files by their names below the root."""
    paths: set[str] = set()
    unclear: list[str] = []
    tests: list[str] = []
    kinds: set[str] = set()
    starts: set[str] = set()
    lists = revision = folders = False
    for name, text in sorted(code.items()):
        plain = _COMMENT.sub("", text)
        folders = folders or _FOLDERS.search(plain) is not None
        starts.update(_START.findall(plain))
        if _LISTS.search(plain) is not None:
            lists = True
            tests += [_place(name, plain, found) for found in _TESTS.finditer(plain)]
        kinds.update(f".{kind}" for kind in _KIND.findall(plain))
        revision = revision or _REVISION.search(plain) is not None
        for found in _ASKED.finditer(plain):
            literal, rest = found["literal"] or found["quoted"], found["rest"]
            here = posixpath.dirname(name)
            if literal is not None:
                paths.add(posixpath.normpath(posixpath.join(here, f"{literal}{rest}")))
            elif rest:
                paths |= {rest.lstrip("/"), posixpath.normpath(posixpath.join(here, rest[1:]))}
            else:
                unclear.append(_place(name, plain, found))
    inside = {path for path in paths if not path.startswith(("../", "/"))}
    named = Questions(frozenset(inside - _KEPT), lists, revision, tuple(unclear))
    if not lists:
        return named
    listed = frozenset(kinds), frozenset(starts), folders, tuple(dict.fromkeys(tests))
    return Questions(named.paths, lists, revision, named.unclear, *listed)


def _place(name: str, text: str, found: re.Match[str]) -> str:
    return f"{name}:{text.count(chr(10), 0, found.start()) + 1}"


def choose_likes(names: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Return further names like *names*, none of them *taken*, each with one that it is like.

    There is one for each beginning (before a separator; else a digit, a dot or neither) and ending.
    """
    chosen: dict[tuple[str, str], str] = {}
    for name in sorted(name for name in names if len(name) <= _LONGEST):
        stem, ending = posixpath.splitext(name)
        start = _BEGINNING.match(stem)
        chosen.setdefault(
            (
                start[0] if start else "0" if stem[0].isdigit() else "." if stem[0] == "." else "",
                ending,
            ),
            name,
        )
    return {_further_name(name, taken): name for name in chosen.values()}


# Of 255 bytes that file systems take, a character may need four.
_LONGEST = 60
_BEGINNING = re.compile(r"\.?[A-Za-z0-9]+[-_.]")


def _further_name(name: str, taken: Collection[str]) -> str:
    """Return a name of the same characters: 0002.sql for 0001.sql, srcc for src."""
    stem, ending = posixpath.splitext(name)
    while name in taken:
        digits = re.search(r"[0-9]+$", stem)
        if digits is None:
            stem += stem[-1]
        else:
            number = str(int(digits[0]) + 1).zfill(len(digits[0]))
            stem = stem[: digits.start()] + number
        name = stem + ending
    return name


def find_moved(
    read: Graph, gone: frozenset[StorePath], come: frozenset[StorePath], own: frozenset[StorePath]
) -> frozenset[StorePath]:
    """Return those of the derivations *gone* that came again, with nothing but another text.

    What is gone without such a successor was only not asked for, which tells nothing. *own* are
    the project's derivations as far as they are known.
    """
    successors: dict[str, list[Derivation]] = {}
    for path in come:
        successors.setdefault(path.name, []).append(read(path))
    waiting = {path for path in gone - own if path.name in successors}
    moved: set[StorePath] = set()
    while True:
        known = moved | own
        found = {
            path
            for path in waiting
            if any(_succeeds(other, read(path), known) for other in successors[path.name])
        }
        if not found:
            return frozenset(moved)
        moved |= found
        waiting -= found


def _succeeds(other: Derivation, derivation: Derivation, known: set[StorePath]) -> bool:
    before, after = set(derivation.input_drvs), set(other.input_drvs)
    return (
        not derivation.is_fixed_output
        and set(derivation.input_srcs) == set(other.input_srcs)
        and before - after <= known
        and sorted(path.name for path in before - after)
        == sorted(path.name for path in after - before)
    )
