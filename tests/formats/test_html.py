from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nix_seed.report.rules.element import Own, el, harmless, is_web_address, render


class Reader(HTMLParser):
    """What a browser would make of it: tags, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.ends: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self.ends.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_whatever_is_put_in_comes_out_as_text(text: str, value: str) -> None:
    read = Reader(render(el("p", text, title=value)))
    assert read.tags == [("p", [("title", harmless(value))])]
    assert (read.ends, read.text) == (["p"], harmless(text))


@given(st.text())
def test_nothing_steers_what_is_shown(text: str) -> None:
    assert all(char.isprintable() or char in "\n\t" for char in harmless(text))
    assert len(harmless(text)) == len(text)
    render(el("p", text)).encode()  # no lone surrogate is left


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "</p></section></main>",
        "<!-- ",
        "]]>",
        "&lt;script&gt;",
        "a\u202eb\u2066c\u200bd\x00e\x1bf\ud800",
    ],
)
def test_hostile_text_stays_text(text: str) -> None:
    out = render([el("p", text, aria_label=text), text])
    assert out.count("<") == 2  # <p> and </p>
    read = Reader(out)
    assert read.tags == [("p", [("aria-label", harmless(text))])]
    assert read.text == harmless(text) * 2


def test_attributes_are_spelled_as_in_html() -> None:
    node = el("a", "up", href="#top", class_="x", aria_label="Up", hidden=True, id=None, tabindex=0)
    assert render(node) == '<a href="#top" class="x" aria-label="Up" hidden tabindex="0">up</a>'
    assert render(el("svg", el("rect", width="100%"), viewBox="0 0 1 1")) == (
        '<svg viewBox="0 0 1 1"><rect width="100%"></rect></svg>'
    )
    assert render([el("br"), 7, None, ["a", ("b",)], el("td", False)]) == "<br>7ab<td>False</td>"


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        ("p", {"onclick": "alert(1)"}),
        ("p", {"ONLOAD": "alert(1)"}),
        ("p", {"style": "background: url(//x)"}),
        ("p", {"src": "x"}),
        ("p", {"srcdoc": "x"}),
        ("p", {"formaction": "x"}),
        ("p", {"a b": "x"}),
        ("p", {"a>": "x"}),
        ("a", {"href": "javascript:alert(1)"}),
        ("a", {"href": " javascript:alert(1)"}),
        ("a", {"href": "data:text/html,x"}),
        ("a", {"href": "//x"}),
        ("a", {"href": "https://x/\u202e"}),
        ("script", {}),
        ("STYLE", {}),
        ("iframe", {}),
        ("p><script", {}),
        ("", {}),
    ],
)
def test_what_could_run_or_fetch_cannot_be_made(tag: str, attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot"):
        el(tag, **attributes)


def test_own_text_cannot_end_early() -> None:
    assert render(Own("style", "a > b { }")) == "<style>a > b { }</style>"
    for tag, text in (("script", "x = '</script>'"), ("script", "<!--"), ("div", "x")):
        with pytest.raises(ValueError, match="cannot be the text of a"):
            Own(tag, text)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("https://vendor.example/a?b=c#d", True),
        ("http://vendor.example", True),
        ("mirror://debian/pool", False),
        ("javascript:alert(1)//https://", False),
        ("https://a\nb", False),
        ("", False),
    ],
)
def test_links_lead_to_the_web_alone(text: str, is_one: bool) -> None:
    assert is_web_address(text) is is_one
