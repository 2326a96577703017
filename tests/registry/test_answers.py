"""The table of answers, and the rules for addresses and proxies: pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.registry.rules import http
from nix_seed.registry.rules.http import (
    TABLE,
    Meaning,
    Proxy,
    RegistryQuestion,
    join_url,
    judge,
    number,
    parse_url,
    proxy_for,
    who_answered,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"


def as_table() -> str:
    """Return the table as Markdown, as docs/registries.md has it."""
    lines = [
        "| question | answer | means | other way | else is said |",
        "| --- | --- |" + " --- |" * 3,
    ]
    for rule in TABLE:
        statuses = ", ".join(map(str, sorted(rule.statuses)))
        lines.append(
            f"| {rule.question.value} | {statuses} | {rule.meaning.value} "
            f"| {rule.way or '–'} | {rule.said or '–'} |"
        )
    for statuses, meaning, said in http._ANY:
        shown = ", ".join(statuses.split())
        lines.append(f"| any other | {shown} | {meaning.value} | – | {said} |")
    beside = RegistryQuestion.BESIDE.value
    lines.append(
        f"| {beside} | all but 200 by storage | {Meaning.OTHER_WAY.value} | {http._BY_TAG} | – |"
    )
    refused = ", ".join(map(str, sorted(http._HEADLESS)))
    lines.append(
        f"| any, by a HEAD | {refused} by storage | {Meaning.OTHER_WAY.value} "
        f"| {http._BY_GET}, or {http._SEND} | – |"
    )
    lines.append(f"| any | 400, 403 by storage | {Meaning.LATER.value} | {http._STORAGE} | – |")
    lines.append(f"| any other | any other | {Meaning.REFUSED.value} | – | the answer itself |")
    return "\n".join(lines) + "\n"


def test_the_documented_table_is_the_codes_own() -> None:
    assert as_table() in (DOCS / "registries.md").read_text()


def test_no_question_has_two_meanings_for_one_answer() -> None:
    for question in RegistryQuestion:
        statuses = [s for rule in TABLE if rule.question is question for s in rule.statuses]
        assert len(statuses) == len(set(statuses)), question
        assert any(r.meaning is Meaning.YES for r in TABLE if r.question is question)


@pytest.mark.parametrize("question", list(RegistryQuestion))
def test_trouble_is_never_an_answer(question: RegistryQuestion) -> None:
    for status in (429, 502, 503, 504):
        assert judge(question, status).meaning is Meaning.LATER


def test_who_answered() -> None:
    page = {"Content-Type": "text/html; charset=utf-8"}
    assert who_answered(500, {}, "a", "a") == "the registry"
    assert who_answered(403, {}, "s3", "a") == "the storage behind it, s3,"
    assert who_answered(407, {}, "a", "a") == "the proxy"
    assert "a proxy before it" in who_answered(403, page, "a", "a")


@pytest.mark.parametrize(
    "text",
    [
        "http://other\\@home/",
        "http://user@home/",
        "http://user:word@home/",
        "https://[x",
        "https://",
        "http:///x",
        "ftp://x/",
        "http://a b/",
        "http://a/\x00",
        "http://a/\n",
        "http://a\t/",
        "http://a:99999/",
        "http://a:/x\\y",
        "http://\u24d0/",
        "http://a:\u00b2/",
        "//a/",
        "http://a" + "/x" * 10_000,
    ],
)
def test_an_address_with_two_readings_is_refused(text: str) -> None:
    with pytest.raises(CouldNotCheck, match="no address that can be followed") as caught:
        parse_url(text)
    assert "word" not in caught.value.message
    if text not in ("//a/", "https://"):  # relative ones, which lead nowhere else
        with pytest.raises(CouldNotCheck, match="no address that can be followed"):
            join_url(parse_url("https://registry.example/v2/"), text, "the address")


def test_addresses_are_read_once() -> None:
    url = parse_url("HTTPS://Registry.Example:443/v2/?a=b#c")
    assert (url.origin, str(url)) == (
        ("https", "registry.example", 443),
        "https://registry.example/v2/?a=b",
    )
    assert url.shown == "https://registry.example/v2/"
    assert str(join_url(url, "/x?y", "it")) == "https://registry.example/x?y"
    assert str(join_url(url, "http://127.0.0.1:5/x", "it")) == "http://127.0.0.1:5/x"
    assert parse_url("http://[::1]:5000/").host == "[::1]"


def test_counts() -> None:
    assert number("12") == 12
    for text in (None, "", "\u00b2", "-1", "+1", "1 ", "9" * 5000, "1,1"):
        assert number(text) is None


TO = parse_url("https://registry.example:5000/v2/")


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, Proxy("http://p:3128")),
        ({"https_proxy": "p:3128", "HTTPS_PROXY": "q:1"}, Proxy("http://p:3128")),
        ({"ALL_PROXY": "p:3128"}, Proxy("http://p:3128")),
        ({"HTTP_PROXY": "p:3128"}, None),
        ({"HTTPS_PROXY": "http://u:p%40ss@p:3128/"}, Proxy("http://p:3128/", "Basic dTpwQHNz")),
    ],
)
def test_a_proxy_is_found(environ: dict[str, str], proxy: Proxy | None) -> None:
    assert proxy_for(environ, TO) == proxy


@pytest.mark.parametrize(
    ("exempt", "address", "direct"),
    [
        ("registry.example", "https://registry.example/", True),
        (".example", "https://registry.example/", True),
        ("*.example", "https://registry.example/", True),
        ("registry.example:5000", "https://registry.example:5000/", True),
        ("registry.example:5001", "https://registry.example:5000/", False),
        ("try.example", "https://registry.example/", False),
        ("10.0.0.0/8, x", "https://10.1.2.3/", True),
        ("10.0.0.0/8", "https://11.1.2.3/", False),
        ("fd00::/8", "https://[fd00::1]/", True),
        ("[fd00::1]:443", "https://[fd00::1]/", True),
        ("*", "https://anything/", True),
        ("", "https://127.0.0.1/", True),
        ("10.0.0.0/99", "https://10.1.2.3/", False),
    ],
)
def test_what_is_asked_directly(exempt: str, address: str, direct: bool) -> None:
    found = proxy_for({"ALL_PROXY": "p:3128", "NO_PROXY": exempt}, parse_url(address))
    assert (found is None) is direct


@pytest.mark.parametrize("text", ["socks5://u:secret@p:1", "http://u:secret@", "http://a b"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(text: str) -> None:
    with pytest.raises(InputError, match="HTTPS_PROXY names no proxy") as caught:
        proxy_for({"HTTPS_PROXY": text}, TO)
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"
    assert "secret" not in repr(Proxy("http://p", "secret"))
