"""What ``init`` decides without looking: forges, references and diffs."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from nix_seed.core.errors import InputError
from nix_seed.setup.rules.init import (
    FileChange,
    Forge,
    ForgeKind,
    change_of,
    check_ref,
    read_forge,
    workflow_of,
)
from support.programs import need

LINES = st.lists(st.sampled_from(["a", "b", "", " c", "\x0c", "\u2028", "é", "\r", "-", "+x"]))
TEXT = st.tuples(LINES, st.booleans()).map(
    lambda pair: "\n".join(pair[0]) + ("\n" if pair[1] and pair[0] else "")
)


@pytest.mark.parametrize(
    ("origin", "kind", "wanted"),
    [
        ("https://github.com/o/r", None, Forge("github", "github.com", "o/r")),
        ("https://GitHub.com/o/r/", None, Forge("github", "github.com", "o/r")),
        ("https://gitlab.com/g/h/r", None, Forge("gitlab", "gitlab.com", "g/h/r")),
        ("https://gitlab.x.org:8443/g/r", None, Forge("gitlab", "gitlab.x.org:8443", "g/r")),
        ("https://code.example/g/r", "gitlab", Forge("gitlab", "code.example", "g/r")),
        ("https://code.example/g/r", None, None),
        ("https://github.com/o/r", "gitlab", None),
        ("https://notgithub.com/o/r", None, None),
        ("https://github.com.evil.example/o/r", None, None),
        ("https://mygitlab.example/o/r", None, None),
        ("https://github.com/o", None, None),
        ("https://github.com/o/r/more", None, None),
        ('https://github.com/o/r"\nkey = "x', None, None),
        ("/srv/git/r.git", None, None),
        ("file:///srv/git/r.git", "github", None),
        ("http://github.com/o/r", None, None),
    ],
)  # fmt: skip
def test_forges(origin: str, kind: ForgeKind | None, wanted: Forge | None) -> None:
    assert read_forge(origin, kind) == wanted


@given(st.text(max_size=40), st.sampled_from([None, "github", "gitlab"]))
def test_whatever_the_origin_nothing_breaks_out_of_a_string(text: str, kind: ForgeKind) -> None:
    found = read_forge(f"https://github.com/{text}", kind)
    if found is not None:
        workflow = workflow_of(found, "v1", "main")
        assert not set('"\\\n') & set(workflow.subject + workflow.repository + found.url)


@pytest.mark.parametrize(
    ("ref", "full"),
    [
        ("v0.1.0", "refs/tags/v0.1.0"),
        ("1.2", "refs/tags/1.2"),
        ("main", "refs/heads/main"),
        ("feature/x", "refs/heads/feature/x"),
        ("refs/heads/v1", "refs/heads/v1"),
        ("a" * 40, "a" * 40),
        (f"refs/heads/{'a' * 39}", f"refs/heads/{'a' * 39}"),
        ("a" * 41, f"refs/heads/{'a' * 41}"),
        ("v2-dev", "refs/heads/v2-dev"),
    ],
)
def test_a_reference_as_tokens_name_it(ref: str, full: str) -> None:
    forge = Forge("github", "github.com", "o/r")
    assert workflow_of(forge, check_ref(ref), "main").subject.partition("@")[2] == full


@pytest.mark.parametrize(
    "ref", ["", "-x", "a b", "a\nb", "a..b", "../x", 'a"', "é", "${{ x }}", "/a"]
)
def test_what_is_no_reference(ref: str) -> None:
    with pytest.raises(InputError, match="is no tag, branch or commit"):
        check_ref(ref)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.none(), TEXT), TEXT)
def test_git_applies_every_diff(before: str | None, after: str) -> None:
    need("git")
    change = change_of("a dir/file", before, after, force=True)
    lines = list(change.diff())
    if before == after or (before is None and after == ""):
        assert lines == []
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a dir/file"
        if before is not None:
            path.parent.mkdir()
            path.write_text(before, newline="")
        patch = "".join(f"{line}\n" for line in lines)
        command = ["git", "apply", "--whitespace=nowarn", "-"]
        done = subprocess.run(
            command, cwd=name, input=patch.encode(), capture_output=True, check=False,
            env={"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(Path(name).parent)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode() + patch
        assert path.read_bytes().decode() == after


@pytest.mark.parametrize(
    ("before", "force", "state", "writes"),
    [
        (None, False, "new", True),
        ("x", False, "same", False),
        ("y", False, "kept", False),
        ("y", True, "replaced", True),
        ("x", True, "same", False),
    ],
)
def test_states(before: str | None, force: bool, state: str, writes: bool) -> None:
    found: FileChange = change_of("f", before, "x", force=force)
    assert (found.state, found.writes) == (state, writes)
