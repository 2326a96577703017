"""What Nix code asks of files without reading them: are they there, what is in a directory?

To alter what files hold (``alter.py``) does not show that. So one more tree is evaluated, in which
the files that are asked for by name are gone, or there, and each directory has more files and
directories, called like those in it, and like what code looks for in lists.

Where code looks by a pattern, another name that it takes is needed. Patterns are POSIX extended
regular expressions, as ``builtins.match`` takes them. What is not understood gives no name, or one
that the pattern does not take, which does no harm.
"""

import dataclasses
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping

from nix_seed.core.values import dataclass
from nix_seed.formats.nix.store_path import Derivation, Graph, StorePath

# A literal or a variable, and what follows: ./x, (./. + "/x"), "${self}/x", (self + "/x").
_FILE = r"""\s*\(*\s*(?:
        (?P<literal>\.{1,2}(?:/[\w.+-]+)+)
      | "?\$\{\s*(?P<quoted>\.{1,2}(?:/[\w.+-]+)+)\s*\}
      | "?\$\{[\w.]+\} | [\w.]+
    )\s*\+?\s*"?(?P<rest>(?:/[\w.+-]+)*)"""
_ASKED = re.compile(rf"\b(?:pathExists|pathIs(?:Directory|RegularFile))\b{_FILE}", re.VERBOSE)
_READS = re.compile(rf"\b(?:readFile|fileContents|importJSON|importTOML)\b{_FILE}", re.VERBOSE)
# Its file is not beside it, as in `pipe ./a.json [ readFile … ]`, or its name is computed.
_READS_SOMETHING = re.compile(r"\b(?:readFile|fileContents|importJSON|importTOML)\b(?!\s*[=?])")
_DATA = re.compile(r".*\.(json|toml|txt|ya?ml)|VERSION|version")
_LISTS = re.compile(
    r"\b(readDir|readFileType|listFilesRecursive|packagesFromDirectoryRecursive"
    r"|fileset\.toList)\b"
)
_REVISION = re.compile(
    r"""\?\s*"?(rev|shortRev|dirtyRev|dirtyShortRev|revCount)\b|\bhasAttr\s*"(rev|shortRev)\""""
)
# ".sheet", as in hasSuffix, and [.]sheet or \\.sheet at a pattern's end; hasExt "sheet".
_KIND = re.compile(r'(?:"\.|\[\.\]|\\\\\.|\bhasExt ")([A-Za-z0-9]{1,16})\$?"')
# The types that readDir tells.
_FOLDERS = re.compile(r'"directory"')
# A test of names by a literal, or by something else.
_TESTS = re.compile(
    r"""\b(?P<how>hasPrefix|hasSuffix|hasInfix|match|split)\s+
    (?:"(?P<text>(?:[^"\\$]|\\.|\$(?!\{))*)" | [\w($"'])""",
    re.VERBOSE,
)
_LITERAL = re.compile(r"""(?<!')"((?:[^"\\$\n]|\\.|\$(?!\{))*)"|''([^'$\n]*)''""")
_ENDING = re.compile(r"\.\*(?:\[\.\]|\\\.)\w+\$?")
_PIECE = re.compile(r"[A-Za-z0-9_.+@-]{1,32}")
_SPECIAL = re.compile(r"[][()*+?|^$\\]")
# Of a file with more, none stands for a name: too many would have to be added.
_MOST = 40
_MOST_DATA = 1000
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_KEPT = {"flake.nix", "flake.lock", ".git", "", ".", ".."}


@dataclass(frozen=True, slots=True)
class Questions:
    """What the Nix code of a flake asks of its own files.

    *paths* are asked for by name, below the flake's root; *lists* and *revision* tell whether
    directories are listed, and whether there is a commit. *unclear* are places, ``file:line``,
    that ask for what no text names. *kinds*, *ends* and *starts* are the endings and beginnings of
    names that code looks for in lists, and *names* what its patterns take; *folders* tells whether
    it looks for directories, *places* are names of such. *tests* are places that choose from a list
    in other ways. *data* are files that code reads, below the root; *reads* are places that read
    what no text names, *guessed* the files that may be meant.
    """

    paths: frozenset[str] = frozenset()
    lists: bool = False
    revision: bool = False
    unclear: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    starts: frozenset[str] = frozenset()
    folders: bool = False
    tests: tuple[str, ...] = ()
    ends: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    data: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()
    guessed: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything is asked that another tree can answer otherwise."""
        return bool(self.paths or self.data or self.guessed) or self.lists or self.revision


def find_questions(code: Mapping[str, str]) -> Questions:
    """Read the text of ``.nix`` files by their names below the root."""
    paths: set[str] = set()
    data: set[str] = set()
    unclear: list[str] = []
    reads: list[str] = []
    wanted = _Wanted()
    kinds: set[str] = set()
    lists = revision = folders = False
    for name, text in sorted(code.items()):
        plain = _COMMENT.sub("", text)
        folders = folders or _FOLDERS.search(plain) is not None
        listing = _LISTS.search(plain) is not None
        lists = lists or listing
        wanted.read(name, plain, listing)
        kinds.update(f".{kind}" for kind in _KIND.findall(plain))
        revision = revision or _REVISION.search(plain) is not None
        for found in _ASKED.finditer(plain):
            asked = _paths(name, found)
            paths |= asked
            if not asked:
                unclear.append(_place(name, plain, found))
        named_at = set()
        for found in _READS.finditer(plain):
            asked = _paths(name, found)
            data |= asked
            # More of the name may follow, as in "/${name}.json".
            if asked and plain[found.end() : found.end() + 1] not in ("/", "$"):
                named_at.add(found.start())
        for found in _READS_SOMETHING.finditer(plain):
            if found.start() not in named_at:
                reads.append(_place(name, plain, found))
    named = Questions(
        _inside(paths), lists, revision, tuple(unclear), data=_inside(data), reads=tuple(reads)
    )
    if not lists:
        return named
    return dataclasses.replace(
        named,
        kinds=frozenset(kinds),
        starts=frozenset(wanted.starts),
        folders=folders,
        tests=tuple(dict.fromkeys(wanted.tests)),
        ends=frozenset(wanted.ends - kinds),
        names=_names(wanted.patterns, 1, 3),
        places=_names(wanted.patterns, 2, 4) if folders else frozenset(),
    )


def choose_guessed(questions: Questions, names: Collection[str]) -> frozenset[str]:
    """Return which files of these *names* code may read where no text names what it reads."""
    if not questions.reads:
        return frozenset()
    data = (name for name in names if _DATA.fullmatch(posixpath.basename(name)))
    return frozenset(sorted(data)[:_MOST_DATA]) - questions.data


def _paths(name: str, found: re.Match[str]) -> set[str]:
    """Return which files the code in *name* may mean, below the root."""
    literal, rest = found["literal"] or found["quoted"], found["rest"]
    here = posixpath.dirname(name)
    if literal is not None:
        return {posixpath.normpath(posixpath.join(here, f"{literal}{rest}"))}
    return {rest[1:], posixpath.normpath(posixpath.join(here, rest[1:]))} if rest else set()


def _inside(paths: Collection[str]) -> frozenset[str]:
    return frozenset(path for path in paths if not path.startswith(("../", "/"))) - _KEPT


class _Wanted:
    """How code chooses from lists: beginnings and ends of names, patterns, and places (*tests*)."""

    def __init__(self) -> None:
        self.starts: set[str] = set()
        self.ends: set[str] = set()
        self.patterns: set[str] = set()
        self.tests: list[str] = []

    def read(self, name: str, text: str, listing: bool) -> None:
        """Read the *text* of the file *name*; whether it is *listing* directories itself."""
        for found in _TESTS.finditer(text):
            how, literal = found["how"], found["text"]
            pattern = "" if literal is None else _unquoted(literal)
            if _PIECE.fullmatch(pattern) and how.startswith("has"):
                (self.starts if how == "hasPrefix" else self.ends).add(pattern)
            elif how == "match" and _ENDING.fullmatch(pattern):
                continue  # a kind
            elif how == "match" and example(pattern):
                self.patterns.add(pattern)
            elif listing:
                self.tests.append(_place(name, text, found))
                if literal is None:
                    self._add_literals(text)

    def _add_literals(self, text: str) -> None:
        """What a test is by, some literal of the file may be."""
        literals = {_unquoted(one) or other for one, other in _LITERAL.findall(text)}
        if len(literals) <= _MOST:
            pieces = set(filter(_PIECE.fullmatch, literals))
            self.starts |= pieces
            self.ends |= pieces
            self.patterns |= set(filter(_SPECIAL.search, literals))


def _unquoted(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal)


def _names(patterns: Collection[str], *often: int) -> frozenset[str]:
    """Return two names for each pattern: a flake may have one of them."""
    return frozenset(filter(None, (example(one, times) for one in patterns for times in often)))


def _place(name: str, text: str, found: re.Match[str]) -> str:
    return f"{name}:{text.count(chr(10), 0, found.start()) + 1}"


def choose_likes(names: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Return further names like *names*, none of them *taken*, each with one that it is like.

    There is one for each beginning (before a separator; else a digit, a dot or neither) and ending.
    A file that belongs to another (``a.py.lock`` to ``a.py``) comes along with that.
    """
    chosen: dict[tuple[str, str], str] = {}
    there = set(names)
    short = sorted(name for name in names if len(name) <= _LONGEST)
    for name in short:
        stem, ending = posixpath.splitext(name)
        if not ending or stem not in there:
            chosen.setdefault((_beginning(stem), ending), name)
    likes = {}
    for like in chosen.values():
        further = _further_name(like, taken)
        for name in short:
            other = further + name.removeprefix(like)
            if name == like or (name.startswith(f"{like}.") and other not in taken):
                likes[other] = name
    return likes


def _beginning(stem: str) -> str:
    if found := _BEGINNING.match(stem):
        return found[0]
    return "0" if stem[0].isdigit() else "." if stem[0] == "." else ""


def choose_wanted(questions: Questions, stem: str) -> dict[str, str]:
    """Return names of further files such as code looks for in lists; *stem* is in most of them.

    Each comes with what is in the names of files that it is like. Code that is looked for by its
    kind is not made up: whoever imports it wants more than a file.
    """
    wanted = {f"{stem}{end}": end for end in questions.ends | questions.kinds}
    wanted |= {f"{start}{stem}": start for start in questions.starts}
    wanted |= {name: posixpath.splitext(name)[1] or name for name in questions.names}
    return {name: like for name, like in wanted.items() if not name.endswith(".nix")}


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
    successors = _Alike(read, come)
    waiting = {p for p in gone - own if p in successors and not read(p).is_fixed_output}
    moved: set[StorePath] = set()
    while True:
        known = moved | own
        found = {
            path
            for path in waiting
            if any(_succeeds(read(other), read(path)) for other in successors.of(path, known))
        }
        if not found:
            return frozenset(moved)
        moved |= found
        waiting -= found


def _succeeds(other: Derivation, derivation: Derivation) -> bool:
    """Whether both are built from the same sources, and from what goes by the same names."""
    before, after = derivation.input_drvs.keys(), other.input_drvs.keys()
    return set(derivation.input_srcs) == set(other.input_srcs) and sorted(
        _without_numbers(path.name) for path in before - after
    ) == sorted(_without_numbers(path.name) for path in after - before)


class _Alike:
    """Derivations by their names but for numbers, and by what they are built from.

    A thousand may have one name: who asks for those built from some others looks at few.
    """

    def __init__(self, read: Graph, paths: Collection[StorePath]) -> None:
        self._read = read
        self._named: dict[str, set[StorePath]] = {}
        self._users: dict[tuple[str, StorePath], set[StorePath]] = {}
        for path in paths:
            name = _without_numbers(path.name)
            self._named.setdefault(name, set()).add(path)
            for needed in read(path).input_drvs:
                self._users.setdefault((name, needed), set()).add(path)

    def __contains__(self, path: StorePath) -> bool:
        return _without_numbers(path.name) in self._named

    def of(self, path: StorePath, known: Collection[StorePath]) -> Collection[StorePath]:
        """Return those called like *path* that are built from all that it is, but for *known*."""
        name = _without_numbers(path.name)
        needed = [item for item in self._read(path).input_drvs if item not in known]
        users = [self._users.get((name, item), frozenset[StorePath]()) for item in needed]
        users.sort(key=len)
        return users[0].intersection(*users[1:]) if users else self._named.get(name, ())


def find_built_from(
    read: Graph, derivations: Collection[StorePath], sources: Collection[StorePath]
) -> frozenset[StorePath]:
    """Return those *derivations* that are built from *sources*, directly or by another of them."""
    users: dict[StorePath, list[StorePath]] = {}
    for path in derivations:
        derivation = read(path)
        if not derivation.is_fixed_output:
            for needed in (*derivation.input_srcs, *derivation.input_drvs):
                users.setdefault(needed, []).append(path)
    found: set[StorePath] = set()
    waiting = list(sources)
    while waiting:
        more = set(users.get(waiting.pop(), ())) - found
        found |= more
        waiting += more
    return frozenset(found)


def find_chosen(
    read: Graph,
    gone: Collection[StorePath],
    come: Collection[StorePath],
    is_own_source: Callable[[StorePath], bool],
) -> frozenset[StorePath]:
    """Return those *gone* from the twin that are others' work: a file only chose them.

    Where ``PYTHON_VERSION`` says 3.13, and 3.14 in the twin, packages for the one are gone and
    those for the other *come*. They are alike, but for what they are built from, down to what is
    the same in both. What has the project's source in it, or another text alone, is its own.
    """
    fixed = {path for path in gone if read(path).is_fixed_output}
    fetched = {output.hash for path in come for output in read(path).outputs.values()}
    own = {path for path in gone if any(map(is_own_source, read(path).input_srcs))}
    own |= find_built_from(read, gone, own)
    # A download that only goes by another name tells nothing.
    own |= {p for p in fixed if any(o.hash in fetched for o in read(p).outputs.values())}
    alike = _Alike(read, come)
    waiting = {path for path in gone if path not in own and path not in fixed}
    others = find_built_from(read, gone, fixed - own)
    own |= {path for path in waiting - others if path not in alike}
    while True:
        found = {path for path in waiting - own if alike.of(path, own)}
        if not found:
            return frozenset(waiting - own)
        own |= found


def _without_numbers(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


_CLASSES = {"digit": "1", "upper": "A", "punct": "-", "space": " ", "xdigit": "a", "blank": " "}
_TIMES = re.compile(r"[*+?]|\{([0-9]*)[^}]*\}")
# What a name may be made of, so that it is no path and needs no quoting.
_NAME = re.compile(r"[A-Za-z0-9_.+ @=,~-]{1,60}")


def example(pattern: str, often: int = 1) -> str | None:
    """Return a name of a file that *pattern* takes whole, with what may come *often* as often."""
    reader = _Reader(pattern, often)
    name = reader.choices()
    taken = reader.done and _NAME.fullmatch(name) and name not in (".", "..")
    return name if taken else None


class _Reader:
    """Reads a pattern once, from its start to its end; a group is a pattern of its own."""

    def __init__(self, pattern: str, often: int) -> None:
        self._rest = list(reversed(pattern))
        self._often = often

    @property
    def done(self) -> bool:
        return not self._rest

    def choices(self) -> str:
        """Return what the first branch that takes anything takes."""
        found = ["".join(self._branch())]
        while self._rest and self._rest[-1] == "|":
            self._rest.pop()
            found.append("".join(self._branch()))
        return next(filter(None, found), "")

    def _branch(self) -> Iterator[str]:
        while self._rest and self._rest[-1] not in "|)":
            character = self._rest.pop()
            if character == "(":
                one = self.choices()
                self._close(")")
            elif character == "[":
                one = self._bracket()
            elif character == "\\" and self._rest:
                one = self._rest.pop()
            else:
                one = {".": "a", "^": "", "$": ""}.get(character, character)
            yield one * self._times()

    def _close(self, character: str) -> None:
        """Read *character*; where it is missing, the pattern is none."""
        if self._rest and self._rest[-1] == character:
            self._rest.pop()
        else:
            self._rest.append(")")

    def _times(self) -> int:
        """Read how often it comes."""
        found = _TIMES.match("".join(reversed(self._rest)))
        if found is None:
            return 1
        del self._rest[-found.end() :]
        if found[1] is not None:
            return int(found[1] or 1)
        return 1 if found[0] == "?" else self._often

    def _bracket(self) -> str:
        """Return a character that a bracket expression takes."""
        other = bool(self._rest) and self._rest[-1] == "^"
        if other:
            self._rest.pop()
        inside = self._rest.pop() if self._rest else ""
        while self._rest and self._rest[-1] != "]":
            inside += self._rest.pop()
            if inside.endswith("[:"):
                while self._rest and not inside.endswith(":]"):
                    inside += self._rest.pop()
        self._close("]")
        if other:
            return next(one for one in "a0-_ A." if re.search(re.escape(one), inside) is None)
        if found := re.match(r"\[:([a-z]+):\]", inside):
            return _CLASSES.get(found[1], "a")
        return inside[:1]
