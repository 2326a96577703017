from dataclasses import replace

import pytest

from nix_seed.flake.rules.existence import (
    Questions,
    choose_likes,
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
        # Not of the flake, or the flake itself.
        ("pathExists ../../a", set()),
        ("pathExists ../flake.nix", set()),
        ("# pathExists ./a", set()),
    ],
)
def test_files_that_are_asked_for(text: str, paths: set[str]) -> None:
    assert find_questions({"nix/x.nix": text}) == Questions(frozenset(paths))


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
    ("text", "starts", "tests"),
    [
        ('lib.hasPrefix "test_" name', {"test_"}, ()),
        ("lib.hasPrefix start name", set(), ("a.nix:1",)),
        ("lib.hasSuffix ending name", set(), ("a.nix:1",)),
        ('lib.hasInfix "x" name', set(), ("a.nix:1",)),
        ('match "[0-9]+-(.*)[.]sql" name', set(), ("a.nix:1",)),
        ('match ".*[.]sql" name', set(), ()),
        ('match ".*\\\\.sql$" name', set(), ()),
    ],
)
def test_how_names_are_chosen(text: str, starts: set[str], tests: tuple[str, ...]) -> None:
    asked = find_questions({"a.nix": f"readDir ./x; {text}"})
    assert (set(asked.starts), asked.tests) == (starts, tests)
    assert find_questions({"a.nix": text}) == Questions(), "nothing is listed"


@pytest.mark.parametrize(
    ("names", "likes"),
    [
        ([], {}),
        (["a.c", "b.c", "a.h"], {"aa.c": "a.c", "aa.h": "a.h"}),
        (["test_a.py", "test_b.py", "c.py"], {"test_aa.py": "test_a.py", "cc.py": "c.py"}),
        (["001-x.sql", "002-y.sql", "010-z.sql"], {"001-xx.sql": "001-x.sql"}),
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
