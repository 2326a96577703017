"""What is read as Nix is what Nix itself reads, in the project's own files and in odd corners."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.parser import parse
from nix_seed.formats.nix.syntax import AttrSet, Call, Lambda, Operation, Scope, Select, tokenize
from support.programs import need

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path
    for folder in ("src", "examples", "bench", "tests")
    for path in sorted((ROOT / folder).rglob("*.nix"))
] + [ROOT / "flake.nix"]

ODD = [
    'x: "a ${x + "b ${toString 1}"} } \\" \\${ $${ $"',
    "''a '''' ${1 + ''2''} ''${ ''' '$ ' '' + ''$''",
    "''\n  ''\\n $${ '${toString 1}'\n''",
    "{ a.b.\"c d\".${\"e\"} = 1; inherit (x) f \"g\"; inherit; }.a or 2",
    "{ a, b ? { c = 1; }, ... }@args: a.b.c or args.d ? e.f",
    "args@{ a, }: with a; assert true; let { body = 1; }",
    "{ }: { }",
    "{ ... }: rec { }",
    "x:y",
    "a: b: -a + !b == a -> b // { } ++ [ a.b (c d) { } <nixpkgs/lib> ./x ~/y a/b http://z ]",
    "if a then b else c /* if */ # else",
    "{ or = 1; x.or = 2; }",
    "1.5e3 + .5 * 2 / 3 - a-b - c'",
    "./a + ./b/${c}/d.nix + ./${e} + ~/${f}",
    "[ (a: a) b.c or d e ]",
    "assert a; x: y: if x then y else with z; w",
    "{ \"${a}b\" = 1; }",
]  # fmt: skip
WRONG = [
    "{ a = 1 }",
    "{ a: b",
    "let in",
    "a =",
    "(a",
    "[ a",
    '"a',
    "''a",
    "/* a",
    "a b: c",
    "",
    "}",
]


WORDS = [
    "a",
    "b",
    "x:",
    "{",
    "}",
    "{",
    "a",
    "=",
    ";",
    "};",
    "(",
    ")",
    "[",
    "]",
    ".",
    "?",
    "or",
    "//",
]
WORDS += ["${", "let", "in", "with", "rec", "1", '"s"', "''i''", ",", "...", "@", ":", "inherit"]


def accepted_by_nix(text: str) -> bool:
    command = [need("nix-instantiate"), "--parse", "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    # A variable that nothing binds is no matter of syntax.
    return done.returncode == 0 or "undefined variable" in done.stderr


def accepted(text: str) -> bool:
    try:
        parse(text)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_ours_is_read(path: Path) -> None:
    text = path.read_text()
    node = parse(text)
    first, last = tokenize(text)[0], tokenize(text)[-1]
    if first.text != "(" and last.text != ")":
        assert (node.start, node.end) == (first.start, last.end)


@pytest.mark.parametrize("text", [*ODD, *WRONG])
def test_nix_and_we_agree(text: str) -> None:
    assert accepted(text) == accepted_by_nix(text)


@pytest.mark.parametrize("text", ODD)
def test_odd_corners_are_read(text: str) -> None:
    assert accepted(text)


@pytest.mark.parametrize("text", [*ODD, *(path.read_text() for path in FILES)])
def test_tokens_are_the_text(text: str) -> None:
    at = 0
    for token in tokenize(text):
        assert token.text == text[token.start : token.end]
        between = text[at : token.start].strip()
        assert between == "" or between.startswith(("#", "/*"))
        at = token.end


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=9))
def test_what_nix_takes_is_taken(words: list[str]) -> None:
    text = " ".join(words)
    if accepted_by_nix(text):
        assert accepted(text), text


def test_the_structure_is_seen() -> None:
    node = parse("{ a.b = x: let c = 1; in f (d: e) { } // g.h; }")
    assert isinstance(node, AttrSet)
    [binding] = node.bindings
    assert [part.name for part in binding.path] == ["a", "b"]
    assert isinstance(binding.value, Lambda)
    assert binding.value.name == "x"
    assert isinstance(binding.value.body, Scope)
    operation = binding.value.body.body
    assert isinstance(operation, Operation)
    assert operation.operators == ("//",)
    call, select = operation.operands
    assert isinstance(call, Call)
    assert [type(each) for each in call.arguments] == [Lambda, AttrSet]
    assert isinstance(select, Select)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{\n a = 1 }", "line 2: ';' is wanted, not '}'"),
        ("{\n a = ", "line 2: a value is wanted, not 'the end'"),
        ("\n\n'' x", "line 3: a string has no end"),
        ("/* a", "line 1: a comment has no end"),
        ('"${a"', "line 1: a string has no end"),
        ("a b\n}", "line 2: the end of the file is wanted, not '}'"),
        ("a ^ b", "line 1: '^' begins nothing that Nix knows"),
        ("(" * 100000, "the Nix expression is nested too deeply to be read"),
        ('"${' * 100000, "the Nix expression is nested too deeply to be read"),
    ],
)
def test_errors_say_where(text: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        parse(text)
    assert raised.value.message == words
