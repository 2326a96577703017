"""What the inputs of a CI step mean, and what is refused."""

from __future__ import annotations

import pytest

from nix_seed.core.errors import InputError
from nix_seed.setup.rules.ci_inputs import (
    Decision,
    Host,
    parse_list,
    parse_names,
    parse_seed_attr,
    parse_switch,
    parse_systems,
    parse_tags,
    repository_of,
    split_index_tags,
)


def decision(host: Host = "github", repository: str | None = "Owner/Repo") -> Decision:
    return Decision(host, True, "", True, repository)


@pytest.mark.parametrize(
    ("text", "directory", "attr"),
    [
        (".#seed", ".", None),
        ("#seed", ".", None),
        ("seed", ".", None),
        (".", ".", None),
        ("", ".", None),
        (".#other", ".", "other"),
        ("other", ".", "other"),
        ("sub/dir#other", "sub/dir", "other"),
        ("./sub", "./sub", None),
        ("sub/dir", "sub/dir", None),
        (" .#a.b ", ".", "a.b"),
    ],
)
def test_seed_attr(text: str, directory: str, attr: str | None) -> None:
    assert parse_seed_attr(text) == (directory, attr)


def test_what_is_published_is_the_checkout() -> None:
    with pytest.raises(InputError, match="names a flake that is not in the checkout"):
        parse_seed_attr("github:owner/repo#seed")


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", ()),
        ("  \n ", ()),
        ("a", ("a",)),
        ("a b,c\nd", ("a", "b", "c", "d")),
        ("a, a ,a", ("a",)),
        ('["a", "b c", "a", " "]', ("a", "b c")),
    ],
)
def test_lists(text: str, items: tuple[str, ...]) -> None:
    assert parse_list(text) == items


def test_names_may_have_spaces() -> None:
    assert parse_names("Some Licence 1.0, other\n third ") == ("Some Licence 1.0", "other", "third")


@pytest.mark.parametrize("text", ["[", '["a"', "[1]", "[null]", "[" * 100_000])
def test_broken_json_is_named(text: str) -> None:
    with pytest.raises(InputError):
        parse_list(text)


def test_tags_are_tags() -> None:
    assert parse_tags("v1.0 latest") == ("v1.0", "latest")
    for bad in ("a:b", "-x", "é", "$(id)", "a/b", "x" * 129):
        with pytest.raises(InputError):
            parse_tags(bad)


def test_some_tags_are_the_indexs_alone() -> None:
    sha, longer = "a" * 40, "0" * 64
    free = ("v1", f"{sha}-x86_64-linux", "a" * 41, "A" * 40, "latest-1")
    assert split_index_tags((*free, "latest", sha, longer)) == (free, ("latest", sha, longer))


def test_systems() -> None:
    assert parse_systems('["x86_64-linux", "aarch64-darwin"]') == ("aarch64-darwin", "x86_64-linux")
    assert parse_systems("x86_64-linux,\n x86_64-linux") == ("x86_64-linux",)
    for bad in ("linux", "x86_64-linux;id", "X-Y", "../x-y", "a-b-c"):
        with pytest.raises(InputError, match="is no Nix system"):
            parse_systems(bad)


def test_switches() -> None:
    assert [parse_switch(text, "x") for text in ("", "true", "False")] == [False, True, False]
    with pytest.raises(InputError, match="required is 'yes', neither true nor false"):
        parse_switch("yes", "required")


@pytest.mark.parametrize(
    ("image", "registry", "made", "environ", "wanted"),
    [
        ("", "", decision(), {}, "ghcr.io/owner/repo-seed"),
        ("", "localhost:5000", decision(), {}, "localhost:5000/owner/repo-seed"),
        ("Team/Seeds", "ghcr.io", decision(), {}, "ghcr.io/team/seeds"),
        ("quay.io/Team/Seeds", "ghcr.io", decision(), {}, "quay.io/team/seeds"),
        ("localhost:5000/x", "", decision(), {}, "localhost:5000/x"),
        ("", "", decision("gitlab"), {"CI_REGISTRY": "reg.example"}, "reg.example/owner/repo/seed"),
        ("a/b", "r.example", decision("other", None), {}, "r.example/a/b"),
        ("a/b", "r.example/docker-local", decision(), {}, "r.example/docker-local/a/b"),
    ],
)
def test_the_repository(
    image: str, registry: str, made: Decision, environ: dict[str, str], wanted: str
) -> None:
    assert str(repository_of(image, registry, made, environ)) == wanted


def test_a_repository_must_be_known_and_bare() -> None:
    with pytest.raises(InputError, match="the repository of the seeds is not named"):
        repository_of("", "", decision("other", None), {})
    with pytest.raises(InputError, match="names a tag or digest"):
        repository_of("a/b:c", "", decision(), {})
    with pytest.raises(InputError, match="a registry's name has no scheme") as caught:
        repository_of("", "https://registry.example:5000/", decision(), {})
    assert caught.value.hint == "write registry: registry.example:5000"
