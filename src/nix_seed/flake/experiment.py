"""Evaluates a flake's twin, whose files are all altered: what differs, its own source decides.

The twin is a copy of the flake's tree, evaluated as purely as the flake: its inputs are pinned by
the same lock file. Nothing of it is built, save what evaluation itself builds.
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nix_seed.core.errors import CouldNotCheck, NixFailed
from nix_seed.core.files import files_below
from nix_seed.flake.nix import FlakeMetadata, Nix
from nix_seed.flake.nix_code import call_nix_half
from nix_seed.flake.rules.alter import FURTHER_FILE, alter
from nix_seed.flake.rules.frontier import Twin
from nix_seed.formats.nix.store_path import StorePath

# Another commit, and a moment that no commit has.
REVISION = "5eed" * 10
_LATER = 1


def evaluate_twin(
    nix: Nix, metadata: FlakeMetadata, arguments: Mapping[str, Any]
) -> dict[str, Any] | NixFailed:
    """Return outputs and inputs of the twin of the flake, as ``default.nix`` says, or why not.

    A flake may read every file of a directory as code: then no further files are added.
    """
    problem: NixFailed | None = None
    source = nix.root / str(metadata.source).lstrip("/")
    for further in (True, False):
        try:
            with altered(source, further=further) as tree:
                _set_time(tree, metadata)
                url = _url(tree, nix.hash_path(tree), metadata)
                answer: dict[str, Any] = call_nix_half(
                    nix, "twin", url, arguments, "evaluating the altered flake"
                )
                return answer
        except NixFailed as error:
            problem = problem or error
    assert problem is not None
    return problem


def compare(
    nix: Nix, answer: Mapping[str, Any] | NixFailed, original: Collection[StorePath]
) -> Twin:
    """Read the *answer*; *original* are the derivations that make the flake's own outputs."""
    if isinstance(answer, NixFailed):
        return Twin(problem=reason_of(answer.detail or answer.message))
    outputs = {
        entry["output"]: entry["context"] for entry in answer["outputs"] if "context" in entry
    }
    roots = {
        StorePath.parse(path)
        for context in outputs.values()
        for path in context
        if path.endswith(".drv")
    }
    derivations = nix.requisites(roots)
    known = nix.requisites(original)
    made = {
        output.path
        for path in derivations - known
        if path.name.endswith(".drv")
        for output in nix.read_derivation(path).outputs.values()
        if output.path is not None
    }
    return Twin(frozenset(outputs), derivations, frozenset(made), answer["inputs"])


def reason_of(text: str) -> str:
    """Return the last line of Nix's *text* that says why, rather than a hint or a trace."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error:") and line != "error:"]
    return (said or lines or [text])[-1]


@contextmanager
def altered(
    source: Path, *, further: bool, tracked: Collection[str] | None = None
) -> Iterator[Path]:
    """Copy the tree at *source* with other bytes in each file, and *further* files if asked.

    With *tracked*, only the files of these names are the flake's.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
            tree = Path(directory, "source")
            tree.mkdir()
            names = files_below(source, links=True) if tracked is None else tracked
            for name in names:
                _copy(source / name, tree / os.path.relpath(source / name, source))
            if further:
                for place, _, _ in list(os.walk(tree)):
                    Path(place, FURTHER_FILE).write_text("\n")
            yield tree
    except (OSError, RecursionError) as error:
        raise CouldNotCheck(
            f"cannot copy the flake's source {source}: {getattr(error, 'strerror', error)}",
            hint="a garbage collection may have removed it: run the command again",
        ) from error


def _copy(source: Path, target: Path) -> None:
    """Copy a file altered, a link as it is; what is tracked and gone, or a submodule, is not."""
    if source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.readlink(source))
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(alter(source.name, source.read_bytes()))
        shutil.copymode(source, target)


def _set_time(tree: Path, metadata: FlakeMetadata) -> None:
    """Date the tree as the URL does: Nix compares with the newest file."""
    if metadata.last_modified is not None:
        time = metadata.last_modified + _LATER
        for directory, directories, files in os.walk(tree):
            for name in [*files, *directories]:
                os.utime(os.path.join(directory, name), (time, time), follow_symlinks=False)
        os.utime(tree, (time, time))


def _url(tree: Path, nar_hash: str, metadata: FlakeMetadata) -> str:
    """Name the twin purely, with another time, and a revision whatever the flake has.

    What an uncommitted change makes of `self.rev or "dirty"` then comes out otherwise too.
    """
    query = {"narHash": nar_hash, "rev": REVISION[: len(metadata.revision or REVISION)]}
    if metadata.rev_count is not None:
        query["revCount"] = str(metadata.rev_count + 1)
    if metadata.last_modified is not None:
        query["lastModified"] = str(metadata.last_modified + _LATER)
    if metadata.directory:
        query["dir"] = metadata.directory
    return f"path:{quote(str(tree))}?" + "&".join(
        f"{name}={quote(text, safe='')}" for name, text in query.items()
    )
