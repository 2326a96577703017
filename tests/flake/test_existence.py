import itertools
import re
from dataclasses import replace

import pytest

from nix_seed.flake.rules.existence import (
    Questions,
    choose_guessed,
    choose_likes,
    choose_wanted,
    example,
    find_built_from,
    find_chosen,
    find_moved,
    find_questions,
)
from nix_seed.formats.nix.store_path import Derivation, Output, StorePath


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("if builtins.pathExists ./a then", {"nix/a"}),
        ('pathExists (./. + "/a.nix")', {"nix/a.nix"}),
        ('pathExists (./.. + "/a")', {"a"}),
        ("lib.optional (pathExists ../a/b-1.x) x", {"a/b-1.x"}),
        ('pathExists "${self}/a/b"', {"a/b", "nix/a/b"}),
        ('pathExists (self + "/a")', {"a", "nix/a"}),
        ('pathExists "${./.}/a"', {"nix/a"}),
        ("pathExists\n  ./a", {"nix/a"}),
        ("lib.pathIsDirectory ./a", {"nix/a"}),
        ('lib.pathIsRegularFile (self + "/a")', {"a", "nix/a"}),
        # Not of the flake, or the flake itself.
        ("pathExists ../../a", set()),
        ("pathExists ../flake.nix", set()),
        ("# pathExists ./a", set()),
    ],
)
def test_files_that_are_asked_for(text: str, paths: set[str]) -> None:
    assert find_questions({"nix/x.nix": text}) == Questions(frozenset(paths))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("builtins.readFile ./a.toml", {"nix/a.toml"}),
        ("lib.importTOML ../a.toml", {"a.toml"}),
        ('lib.fileContents "${self}/a"', {"a", "nix/a"}),
        ('fromJSON (readFile (./. + "/a.json"))', {"nix/a.json"}),
        ("readFile ../flake.lock", set()),
    ],
)
def test_files_that_are_read(text: str, paths: set[str]) -> None:
    assert find_questions({"nix/x.nix": text}) == Questions(data=frozenset(paths))


def test_files_that_are_read_without_a_name() -> None:
    code = "lib.pipe ./a.json [\n readFile\n]; importJSON file; readFile = 1; inherit readFile;"
    found = find_questions({"x.nix": code})
    assert found == Questions(reads=("x.nix:2", "x.nix:3", "x.nix:3"))
    assert not found, "there may be no such file"
    for text in ('./. + "/${name}.json"', '"${self}/data/${name}"', 'data + "/${name}"'):
        assert find_questions({"x.nix": f"importJSON ({text})"}).reads == ("x.nix:1",), text
    names = {"a.json", "b/VERSION", "c.nix", "d.c"}
    assert choose_guessed(found, names) == {"a.json", "b/VERSION"}
    assert not choose_guessed(Questions(), names)


def test_what_else_is_asked() -> None:
    code = {"a.nix": "# pathExists\n\n[ (pathExists file) ]", "b.nix": "readDir ./x"}
    assert find_questions(code) == Questions(lists=True, unclear=("a.nix:3",))
    assert find_questions({"a.nix": "if self ? rev then 1 else 2"}).revision
    assert find_questions({"a.nix": 'builtins.hasAttr "rev" self'}).revision
    assert not find_questions({"a.nix": "self.rev or null"})


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ('match ".*[.]sheet" name', {".sheet"}),
        ('match ".*\\\\.sheet$" name', {".sheet"}),
        ('lib.hasSuffix ".md" name && lib.hasSuffix ".c" name', {".md", ".c"}),
        ('"a sentence." + "1.2.3"', set()),
    ],
)
def test_kinds_that_are_looked_for(text: str, kinds: set[str]) -> None:
    listed = find_questions({"a.nix": f"readDir ./x; {text}"})
    assert listed == Questions(lists=True, kinds=frozenset(kinds))
    assert not find_questions({"a.nix": text}).kinds, "nothing is listed"


@pytest.mark.parametrize(
    ("text", "starts", "others", "tests"),
    [
        ('lib.hasPrefix "test_" name', {"test_"}, set(), ()),
        ("lib.hasPrefix start name", set(), set(), ("a.nix:1",)),
        ('lib.hasSuffix "_test.go" name', set(), {"_test.go"}, ()),
        ("lib.hasSuffix ending name", set(), set(), ("a.nix:1",)),
        ('lib.hasInfix "x" name', set(), {"x"}, ()),
        ('match "[0-9]+-(.*)[.]sql" name', set(), {"0-a.sql", "000-aaa.sql"}, ()),
        (
            'match "V[[:digit:]]{3}__[a-z]+\\\\.sql" name',
            set(),
            {"V111__a.sql", "V111__aaa.sql"},
            (),
        ),
        ('match "[0-9" name', set(), set(), ("a.nix:1",)),
        ('match ".*[.]sql" name', set(), set(), ()),
        ('match ".*\\\\.sql$" name', set(), set(), ()),
        # Another literal of the file may be what is meant, and is still only a guess.
        ('let w = "it"; in hasPrefix w name', {"it"}, {"it"}, ("a.nix:1",)),
        ('let w = "a{2}(b|c)"; in match w name', set(), {"aab"}, ("a.nix:1",)),
        ("let w = ''[a-z]-x''; in match w name", set(), {"a-x"}, ("a.nix:1",)),
    ],
)
def test_how_names_are_chosen(
    text: str, starts: set[str], others: set[str], tests: tuple[str, ...]
) -> None:
    asked = find_questions({"a.nix": f"readDir ./x; {text}"})
    found = set(asked.starts), set(asked.ends | asked.names), asked.tests
    assert found == (starts, others, tests)
    assert find_questions({"a.nix": text}) == Questions(), "nothing is listed"


def test_names_that_code_looks_for() -> None:
    code = 'readDir ./x; match "[0-9]+-x" n; hasPrefix "a_" n; hasSuffix ".md" n; hasInfix "mid" n'
    asked = find_questions({"a.nix": f'{code}; t == "directory"; hasSuffix ".nix" n'})
    wanted = {"0-x": "0-x", "000-x": "000-x", "a_new": "a_", "new.md": ".md", "newmid": "mid"}
    assert choose_wanted(asked, "new") == wanted
    assert asked.places == {"00-x", "0000-x"}


@pytest.mark.parametrize(
    "pattern",
    [
        "(one|two)[.]txt",
        "[^0-9a]+x?",
        "[[:upper:]][[:space:]]b{2,3}",
        "()x|",
        "a(b(c|d)*)+e",
        "[a-z]*",
    ],
)
def test_an_example_is_taken(pattern: str) -> None:
    names = {example(pattern), example(pattern, 2)}
    classes = {"[:upper:]": "A-Z", "[:space:]": " "}
    for name, of in classes.items():
        pattern = pattern.replace(name, of)
    assert all(name and re.fullmatch(pattern, name) for name in names)


@pytest.mark.parametrize("pattern", ["", "(a", "a)", "[", "a/b", "\\.", "[a", "a|(", "é"])
def test_what_is_no_pattern_of_a_name_gives_none(pattern: str) -> None:
    assert example(pattern) is None


@pytest.mark.parametrize(
    ("names", "likes"),
    [
        ([], {}),
        (["a.c", "b.c", "a.h"], {"aa.c": "a.c", "aa.h": "a.h"}),
        (["test_a.py", "test_b.py", "c.py"], {"test_aa.py": "test_a.py", "cc.py": "c.py"}),
        (["001-x.sql", "002-y.sql", "010-z.sql"], {"001-xx.sql": "001-x.sql"}),
        (["a.py", "a.py.lock", "b.py"], {"aa.py": "a.py", "aa.py.lock": "a.py.lock"}),
        (["009", "010", ".a", "Makefile"], {"011": "009", "Makefilee": "Makefile", ".aa": ".a"}),
    ],
)
def test_further_names(names: list[str], likes: dict[str, str]) -> None:
    found = choose_likes(names, names)
    assert not found.keys() & set(names)
    assert likes.items() <= found.items()


def path(name: str, number: int = 0) -> StorePath:
    return StorePath(f"{str(number) * 32}-{name}.drv")


def drv(*inputs: StorePath, text: str = "", src: str = "src", fixed: bool = False) -> Derivation:
    return Derivation(
        outputs={"out": Output(None, "sha256", "00" * 32 if fixed else "")},
        input_drvs=dict.fromkeys(inputs, ("out",)),
        input_srcs=(StorePath(f"{'0' * 32}-{src}"),),
        system="x86_64-linux",
        builder="/bin/sh",
        args=(),
        env={"text": text},
    )


A, B, A2, B2, C = path("a"), path("b"), path("a", 1), path("b", 1), path("c")


@pytest.mark.parametrize(
    ("graph", "moved"),
    [
        # Another text, and what is built from it.
        ({A: drv(C, text="1"), B: drv(A), A2: drv(C, text="2"), B2: drv(A2)}, {A, B}),
        # Only not asked for any more.
        ({A: drv(C), B: drv(A)}, set()),
        # Another version, which has another source; what is built from that is not the project's.
        ({A: drv(C), B: drv(A), A2: drv(C, src="other"), B2: drv(A2)}, set()),
        ({A: drv(C), A2: drv(C, text="x"), B: drv(A, C), B2: drv(A2)}, {A}),
        ({A: drv(C, fixed=True), A2: drv(C, text="x")}, set()),
    ],
)
def test_what_another_answer_moves(
    graph: dict[StorePath, Derivation], moved: set[StorePath]
) -> None:
    gone, come = frozenset(graph) & {A, B}, frozenset(graph) & {A2, B2}
    assert find_moved(graph.__getitem__, gone, come, frozenset()) == moved


def test_what_is_built_from_the_project_follows_it() -> None:
    graph = {A: drv(C), B: drv(A), A2: drv(C, src="other"), B2: drv(A2)}
    gone, come = frozenset({A, B}), frozenset({A2, B2})
    assert find_moved(graph.__getitem__, gone, come, frozenset({A})) == {B}
    graph[B2] = replace(graph[B2], input_srcs=())
    assert find_moved(graph.__getitem__, gone, come, frozenset({A})) == frozenset()


def test_what_is_built_from_a_source() -> None:
    graph = {A: drv(C, src="empty"), B: drv(A), A2: drv(C), B2: drv(A, fixed=True)}
    empty = StorePath(f"{'0' * 32}-empty")
    assert find_built_from(graph.__getitem__, graph, [empty]) == {A, B}
    assert find_built_from(graph.__getitem__, graph, []) == frozenset()


SOURCE = StorePath(f"{'0' * 32}-own")


def test_a_thousand_of_one_name_are_not_compared_each_with_each() -> None:
    """A tree of packages, or a chain of them, has thousands of derivations."""
    looked_at = 0

    def read(item: StorePath) -> Derivation:
        nonlocal looked_at
        looked_at += 1
        return graph[item]

    fetched = [path(f"src-{number}") for number in range(1000)]
    before = [path(f"app-{number}", 1) for number in range(1000)]
    after = [path(f"app-{number}", 2) for number in range(1000)]
    graph = {one: drv(src, text="1") for one, src in zip(before, fetched, strict=True)}
    graph |= {one: drv(src, text="2") for one, src in zip(after, fetched, strict=True)}
    moved = find_moved(read, frozenset(before), frozenset(after), frozenset())
    assert moved == set(before)
    assert find_chosen(read, before, after, SOURCE.__eq__) == set()
    graph |= {one: drv(item) for item, one in itertools.pairwise(before)}
    graph[before[0]] = drv(C, src="own")
    assert find_built_from(read, before, [SOURCE]) == set(before)
    assert looked_at < 20_000


PYTHON, PYTHON2, TOOL = path("python3.13"), path("python3.14"), path("python3.13-tool-1.0")
TOOL2, USER, USER2 = path("python3.14-tool-1.0", 1), path("app"), path("app", 1)


@pytest.mark.parametrize(
    ("tool", "other", "chosen"),
    [
        # Built from another Python, which is there in both or gone with it.
        (drv(PYTHON), drv(PYTHON2), {TOOL}),
        # Its text is another, or it has the project's source in it.
        (drv(PYTHON, text="1"), drv(PYTHON, text="2"), set()),
        (drv(PYTHON, src="own"), drv(PYTHON2, src="own"), set()),
    ],
)
def test_what_a_file_only_chooses(
    tool: Derivation, other: Derivation, chosen: set[StorePath]
) -> None:
    graph = {TOOL: tool, TOOL2: other, USER: drv(TOOL, src="own"), USER2: drv(TOOL2, src="own2")}
    graph |= {PYTHON: drv(C), PYTHON2: drv(C)}
    found = find_chosen(graph.__getitem__, {TOOL, USER}, {TOOL2, USER2}, SOURCE.__eq__)
    assert found == chosen
    # Nothing like it comes: it is no choice.
    assert not find_chosen(graph.__getitem__, {TOOL}, {USER2}, SOURCE.__eq__)


def test_another_download_is_a_choice_and_another_name_of_one_is_none() -> None:
    fetched, renamed = path("x-1-src"), path("x-2-src")
    one, two = path("x-1"), path("x-2")
    graph = {fetched: drv(C, fixed=True), renamed: drv(C, fixed=True)}
    graph |= {one: drv(fetched), two: drv(renamed)}
    gone, come = {fetched, one}, {renamed, two}
    assert not find_chosen(graph.__getitem__, gone, come, SOURCE.__eq__)
    other = Output(None, "sha256", "11" * 32)
    graph[renamed] = replace(graph[renamed], outputs={"out": other})
    assert find_chosen(graph.__getitem__, gone, come, SOURCE.__eq__) == {one}
