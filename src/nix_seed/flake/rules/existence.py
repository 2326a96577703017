"""What Nix code asks of files without reading them: are they there, what is in a directory?

To alter what files hold (``alter.py``) does not show that. So one more tree is evaluated, in which
the files that are asked for by name are gone, or there, and each directory has one more of a kind.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nix_seed.formats.nix.derivation import Derivation, Graph
from nix_seed.formats.nix.store_path import StorePath

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
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_KEPT = {"flake.nix", "flake.lock", ".git", "", ".", ".."}


@dataclass(frozen=True, slots=True)
class Questions:
    """What the Nix code of a flake asks of its own files.

    *paths* are asked for by name, below the flake's root; *lists* and *revision* tell whether
    directories are listed, and whether there is a commit. *unclear* are places, ``file:line``,
    that ask for what no text names. *kinds* are the endings of names that code looks for in lists.
    """

    paths: frozenset[str] = frozenset()
    lists: bool = False
    revision: bool = False
    unclear: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything is asked that another tree can answer otherwise."""
        return bool(self.paths) or self.lists or self.revision


def find_questions(code: Mapping[str, str]) -> Questions:
    """Read the text of ``.nix`` files by their names below the root."""
    paths: set[str] = set()
    unclear: list[str] = []
    kinds: set[str] = set()
    lists = revision = False
    for name, text in sorted(code.items()):
        plain = _COMMENT.sub("", text)
        lists = lists or _LISTS.search(plain) is not None
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
                unclear.append(f"{name}:{plain.count(chr(10), 0, found.start()) + 1}")
    inside = {path for path in paths if not path.startswith(("../", "/"))}
    asked = frozenset(kinds) if lists else frozenset()
    return Questions(frozenset(inside - _KEPT), lists, revision, tuple(unclear), asked)


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
