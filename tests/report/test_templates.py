"""The templates: what is put into them stays text, and they hold nothing that runs or fetches."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given, strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from nix_seed.core.safe_text import printable
from nix_seed.report.page import parts
from nix_seed.report.page.parts import Child, State, macro, web_address

TEMPLATES = list((files("nix_seed.report") / "templates").iterdir())
MARKUP = {each.name: each.read_text() for each in TEMPLATES if each.name.endswith(".j2")}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</p></section></main>",
    "<!-- ",
    "]]>",
    "&lt;script&gt;",
    "{{ 7 * 7 }}{% raw %}",
    "a\u202eb\u2066c\u200bd\x00e\x1bf\ud800",
]

TABLE = """{% import "parts.html.j2" as parts %}
{%- call(row) parts.table("t", text, [text]) -%}
{{ row(text) }}{{ row(cell(text, text)) }}
{%- endcall %}"""


class Reader(HTMLParser):
    """What a browser would make of it: tags, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.ends: list[str] = []
        self.text = ""
        self.feed(str(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.ends.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_whatever_is_put_in_comes_out_as_text(text: str, value: str) -> None:
    read = Reader(macro("line", [text, [text, None, 7]], value or "x"))
    assert read.tags == [("div", [("class", printable(value or "x"))])]
    assert (read.ends, read.text) == (["div"], f"{printable(text) * 2}7")


@given(st.text())
def test_nothing_steers_what_is_shown(text: str) -> None:
    out = str(macro("hint", text))
    assert all(char.isprintable() or char in "\n\t" for char in out)
    out.encode()  # no lone surrogate is left


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    table = parts.environment().from_string(TABLE)
    read = Reader(table.render(text=text))
    assert read.text == printable(text) * 4
    assert ("th", [("scope", "row"), ("data-key", printable(text))]) in read.tags
    assert [tag for tag, _ in read.tags] == [
        *("div", "table", "caption", "span", "thead", "tr", "th", "tbody", "tr", "th", "tr", "th")
    ]
    folded = Reader(str(parts.fold(text * 100)))
    assert [tag for tag, _ in folded.tags] == ["details", "summary", "span", "p"]


@pytest.mark.parametrize("text", HOSTILE)
def test_each_macro_that_takes_text_escapes_it(text: str) -> None:
    for name in ("digest", "hint", "paragraph", "heading", "strong", "code", "line", "status"):
        calm = Reader(macro(name, "calm"))
        read = Reader(macro(name, text))
        assert [tag for tag, _ in read.tags] == [tag for tag, _ in calm.tags], name
        assert read.text == printable(text), name
    for made in (
        parts.note(State.FALSE, text, text),
        macro("badge", State.FALSE, text),
        macro("facts", [(text, text)]),
        parts.check_list([parts.ShownCheck(text, State.FALSE, text, text)]),
        macro("title", text, text, text),
        macro("glance", [parts.PageSection(text, text, text, None, text)], of="image.html.j2"),
        macro("tier_name", text, text),
    ):
        read = Reader(made)
        assert printable(text) in read.text
        assert not {"script", "img", "p" if "note" in made else "script"} & {
            t for t, _ in read.tags
        }
        assert not [n for _, attrs in read.tags for n, _ in attrs if n.startswith("on")]


@pytest.mark.parametrize("name", MARKUP)
def test_templates_trust_nothing_and_quote_every_value(name: str) -> None:
    text = re.sub(r"\{#.*?#\}", "", MARKUP[name], flags=re.S)
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)
    plain = re.sub(r"\{\{.*?\}\}", "X", re.sub(r"\{%.*?%\}", "", text, flags=re.S), flags=re.S)
    assert not re.search(r"<[^<>]*\s(?:on\w+|style|src|srcset|action|poster|ping)\s*=", plain)
    assert not re.search(r"=\s*X", plain), "a value stands between quotes"
    tags = set(re.findall(r"<([a-zA-Z]+)", plain))
    assert not tags & {"iframe", "object", "embed", "base", "form", "img"}
    scripts = {"page.html.j2": {"script", "style"}}.get(name, set())
    assert tags & {"script", "style"} == scripts
    leads = re.findall(r"href=\"([^\"]*)\"", text)
    # The one that is not an anchor is made by ``web_address`` alone.
    assert all(
        each.startswith("#")
        or each == "data:,"
        or (name, each) == ("parts.html.j2", "{{ address }}")
        for each in leads
    )


def test_a_value_that_lacks_is_no_empty_text() -> None:
    with pytest.raises(UndefinedError):
        parts.fill("map.html.j2")


def test_own_text_cannot_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(parts._asset("page.css"), Markup)
    for text in ("x = '</script>'", "<!--"):
        monkeypatch.setattr(parts, "_text", lambda _name, text=text: text)
        with pytest.raises(ValueError, match="cannot be the text of an element"):
            parts._asset.__wrapped__("page.js")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("https://vendor.example/a?b=c#d", True),
        ("http://vendor.example", True),
        ("ftp://vendor.example/a", False),
        ("mirror://debian/pool", False),
        ("javascript:alert(1)//https://", False),
        (" javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//x", False),
        ("https://x/\u202e", False),
        ('https://x/"onclick="alert(1)', False),
        ("https://a\nb", False),
        ("", False),
    ],
)
def test_links_lead_to_the_web_alone(text: str, is_one: bool) -> None:
    made: Child = web_address(text)
    assert isinstance(made, Markup) is is_one
    assert not is_one or Reader(str(made)).tags[0][1][0] == ("href", text)
