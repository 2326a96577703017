"""What Lix, Determinate Nix and the newest CppNix print, as recorded: Debian has none of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nix_seed.core.errors import NixFailed
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.nix_failures import FORBIDDEN
from nix_seed.flake.rules.nix_version import (
    NixVersion,
    find_misread,
    find_too_old,
    parse_nix_version,
)

REVISION = "3ba1391a7858dd5bb83c3785a14f9feb26856b58"
HASH = "sha256-MyEwKR7frLkJXyCTAYmhACAemt2h4EszAo04ltEu78o="
# Of an empty directory.
EMPTY = "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo="
SOURCE = "/nix/store/44jrnl6bz2is6z4dqjssax13q0a4ri22-source"
GITHUB = {"owner": "edolstra", "repo": "hello", "type": "github"}
URL = f"github:edolstra/hello/{REVISION}"
COMMON = {
    "lastModified": 1586344168,
    "locks": {"nodes": {"root": {}}, "root": "root", "version": 7},
    "original": GITHUB,
    "originalUrl": "github:edolstra/hello",
    "resolved": GITHUB,
    "resolvedUrl": "github:edolstra/hello",
}
LOCKED = {**GITHUB, "lastModified": 1586344168, "rev": REVISION}
DIRTY = {
    "lastModified": 1586344168,
    "locked": {
        "dirtyRev": f"{REVISION}-dirty",
        "dirtyShortRev": "3ba1391-dirty",
        "lastModified": 1586344168,
        "type": "git",
        "url": "file:///home/u/hello",
    },
    "original": {"type": "git", "url": "file:///home/u/hello"},
    "url": "git+file:///home/u/hello",
}


def stand_in(root: Path, metadata: Mapping[str, Any], there: bool) -> Nix:
    """Return a Nix that answers what was recorded; its archive has the source in any case."""
    programs = root / "bin"
    programs.mkdir()
    (programs / "metadata.json").write_text(json.dumps(metadata))
    (programs / "nix").write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'*"flake metadata"*) exec cat {programs}/metadata.json ;;\n'
        f'*"flake archive"*) mkdir -p {root}{SOURCE}; echo \'{{"path": "{SOURCE}"}}\' ;;\n'
        "*) exit 9 ;;\n"
        "esac\n"
    )
    (programs / "nix").chmod(0o755)
    if there:
        Path(f"{root}{SOURCE}").mkdir(parents=True)
    return Nix(store=root, bin_dir=programs)


@pytest.mark.parametrize(
    ("metadata", "there", "url"),
    [
        # Lix 2.91, CppNix 2.26
        (
            {**COMMON, "locked": {**LOCKED, "narHash": HASH}, "path": SOURCE, "url": URL},
            True,
            URL,
        ),
        # Determinate Nix with lazy trees: neither a path nor a hash.
        ({**COMMON, "locked": LOCKED, "url": URL, "fingerprint": "9d2bb5"}, False, URL),
        # CppNix 2.35, a dirty tree: a path that Nix did not create.
        (
            {**DIRTY, "path": SOURCE},
            False,
            f"path:{SOURCE}?narHash={EMPTY.replace('=', '%3D')}&lastModified=1586344168",
        ),
    ],
)
def test_metadata(metadata: Mapping[str, Any], there: bool, url: str, tmp_path: Path) -> None:
    found = stand_in(tmp_path, metadata, there).metadata("github:edolstra/hello")
    assert (found.url, str(found.source)) == (url, SOURCE)
    assert found.last_modified == 1586344168
    assert found.revision == metadata["locked"].get("rev")


def test_metadata_of_no_known_shape(tmp_path: Path) -> None:
    nix = stand_in(tmp_path, {"url": URL, "locked": LOCKED}, there=False)
    (tmp_path / "bin/nix").write_text("#!/bin/sh\necho '{\"url\": 1}'\n")
    with pytest.raises(NixFailed, match="does not say where the flake's source is"):
        nix.metadata("github:edolstra/hello")


@pytest.mark.parametrize(
    ("text", "fork", "number"),
    [
        ("nix (Lix, like Nix) 2.90.0-beta.1-lixpre20240506-b6799ab", "Lix", (2, 90)),
        ("nix (Lix, like Nix) 2.95.2", "Lix", (2, 95)),
        ("nix (Determinate Nix 3.8.5) 2.30.2", "Determinate Nix", (2, 30)),
        ("nix (Nix) 2.35.0pre20260801_abcdef0", "CppNix", (2, 35)),
    ],
)
def test_versions(text: str, fork: str, number: tuple[int, int]) -> None:
    found = parse_nix_version(text)
    assert isinstance(found, NixVersion)
    assert (found.fork, found.number) == (fork, number)
    assert found.version == text.rsplit(maxsplit=1)[-1]


@pytest.mark.parametrize(
    "text",
    [
        "error: access to URI 'https://example.org/a' is forbidden in restricted mode",
        "error: access to absolute path '/a' is forbidden in pure eval mode (use '--impure' …)",
        "error: access to absolute path '/a' is forbidden in pure evaluation mode (use …)",
        "error: cannot build '/nix/store/x.drv' during evaluation because the option"
        " 'allow-import-from-derivation' is disabled",
    ],
)
def test_what_evaluation_may_not(text: str) -> None:
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize(
    ("said", "problem", "lock", "words"),
    [
        ("nix (Nix) 2.8.0", "", {"nodes": {"sub": {"parent": []}}}, "flake.lock wants 2.26: sub"),
        ("nix (Nix) 2.26.0", "", {"nodes": {"sub": {"parent": []}}}, None),
        ("nix (Nix) 2.26.0", "", {"version": 8}, "a newer one wrote flake.lock (version 8)"),
        ("nix (Nix) 2.8.0", "- `builtins.nixVersion` reports at least 2.18", {}, "wants 2.18"),
        ("nix (Nix) 2.3.0", "This version of Nixpkgs requires Nix >= 2.3.17", {}, "wants 2.3"),
        ("nix (Nix) 2.8.0", "error: attribute 'x' missing", {"version": 7}, None),
        ("no Nix", "", {"version": 8}, None),
    ],
)
def test_too_old(said: str, problem: str, lock: Mapping[str, Any], words: str | None) -> None:
    found = find_too_old(said, problem, lock)
    assert found is None if words is None else words in (found or "")


def test_older_than_the_machines() -> None:
    old, new = "nix (Nix) 2.8.0", "nix (Determinate Nix 3.8.5) 2.30.2"
    said = "the seed's Nix is 2.8.0, this machine's 2.30.2: the flake may want that"
    assert find_too_old(old, "error: any", {}, new) == said
    assert find_too_old(new, "error: any", {}, old) is None
    assert find_too_old(old, "error: any", {}, "") is None


def test_a_path_that_only_a_pure_evaluation_takes() -> None:
    problem = "error: opening directory '/nix/store/x-source/Cargo.toml/../.': Not a directory"
    path = "/nix/store/x-source/Cargo.toml/../."
    assert find_misread("nix (Nix) 2.8.0", problem) == path
    assert find_misread("nix (Nix) 2.26.3", problem) is None, "then it is the flake's fault"
    assert find_misread("nix (Nix) 2.8.0", problem.replace("/../.", "/a")) is None
    assert find_misread("", problem) is None
