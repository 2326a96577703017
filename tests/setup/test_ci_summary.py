"""The page of a job: never too large, and no name in it is more than a name."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given, strategies as st

from nix_seed.setup.rules.ci_words import (
    LARGEST,
    build_summary,
    code,
    paragraph,
    table,
    verbatim,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "</pre><h1>x",
    "a | b",
    "[link](https://example.org)",
    "![image](https://example.org/x.png)",
    "`code` *emphasis* __strong__ ~~gone~~",
    "https://example.org www.example.org a@example.org",
    "@someone #12",
    "line\nbreak\r\n\n# heading",
    "&lt;b&gt;",
    "</code><img src=x onerror=y>",
    "\x1b[31mred",
    "\u202ereversed",
]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def tags(text: str) -> set[str]:
    parser = Tags()
    parser.feed(text)
    return set(parser.found)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_name_is_only_a_name(text: str) -> None:
    shown = code(text)
    assert tags(shown) == {"code"}
    inner = shown.removeprefix("<code>").removesuffix("</code>")
    # What is left are letters, and signs that neither Markdown nor HTML reads.
    assert re.sub(r"&#\d+;", "", inner).translate(str.maketrans("", "", " -+=,/%;()")).isalnum()


@given(st.text(max_size=60))
def test_a_name_can_be_read_again(text: str) -> None:
    shown = unescape(code(text).removeprefix("<code>").removesuffix("</code>"))
    flat = " ".join(text.split())
    assert len(shown) == len(flat)
    assert all(a in (b, "\ufffd") for a, b in zip(shown, flat, strict=True))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_block_of_lines_ends_where_it_should(text: str) -> None:
    shown = build_summary("T", [verbatim("Log", (text, "last"))])
    assert tags(shown) == {"pre"}
    assert shown.count("</pre>") == 1
    assert shown.index("last") < shown.index("</pre>")


def test_cells_keep_their_columns() -> None:
    shown = build_summary("T", [table("H", ("a", "b"), ((code("x | y"), code("z")),))])
    assert "| <code>x &#124; y</code> | <code>z</code> |\n" in shown


def big(number: int) -> list[str]:
    rows = tuple((code(f"/nix/store/{n:032}-<name>"), f"{n}") for n in range(number))
    lines = tuple(f"line {n} <&>" for n in range(number))
    return [
        paragraph("first"),
        table("Rows", ("path", "n"), rows),
        verbatim("Lines", lines),
        paragraph("end"),
    ]


def test_a_small_page_is_whole() -> None:
    shown = build_summary("T", big(3))
    assert "more" not in shown
    assert shown.endswith("end\n\n")
    assert "line 2 &lt;&amp;&gt;" in shown


def test_a_large_page_is_cut_and_says_so() -> None:
    shown = build_summary("T", big(40_000))
    assert len(shown.encode()) < LARGEST
    assert shown.endswith("end\n\n"), "what comes last is small, and stays"
    said = [int(each) for each in re.findall(r"… and (\d+) more", shown)]
    assert sum(said) + shown.count("&#60;name") + shown.count("&lt;&amp;&gt;") == 2 * 40_000
    assert shown.count("<pre>") == shown.count("</pre>") == 1


def test_a_part_that_fits_no_page_is_left_out_and_said_to_be() -> None:
    shown = build_summary("T", [verbatim("Log", ["\u202e" * 1000] * 900), paragraph("end")])
    assert "Log" not in shown
    assert shown.endswith("A part that is too large for this page is left out.\n\nend\n\n")
