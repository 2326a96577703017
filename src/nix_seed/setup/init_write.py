"""Writes what ``init`` planned: all of it or nothing, and only what Nix still understands."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nix_seed.core.errors import CheckedFalse, InputError, NixFailed, NixSeedError
from nix_seed.core.files import explained, unnamed
from nix_seed.flake.nix import Nix
from nix_seed.setup.init import InitPlan, read_text
from nix_seed.setup.rules.file_change import FileChange

# Stands for nix-seed where that cannot be fetched: what is asked of it is only whether it is there.
_STUB = "{ outputs = { self }: { lib.mkSeed = { ... }: { }; lib.mkRun = { ... }: { }; }; }\n"
_SHAPE = """
flake:
let read = import flake; inputs = read.inputs or { };
in {
  inputs = builtins.removeAttrs inputs [ "nix-seed" ];
  had = inputs ? nix-seed;
  asks = builtins.attrNames (builtins.functionArgs read.outputs);
}
"""
_OFFLINE = {"connect-timeout": "5", "download-attempts": "1"}


def carry_out(plan: InitPlan, nix: Nix) -> tuple[str, ...]:
    """Write *plan*; return notes on what could not be checked.

    Raises ``InputError`` where a file changed since, ``CheckedFalse`` where Nix does not read the
    flake as it would be: then everything is as it was.
    """
    root = plan.repository.root
    flake = next((each for each in plan.to_write if each.path.endswith("flake.nix")), None)
    if flake is None:
        with _written(root, plan.to_write):
            return ()
    if not nix.is_at_hand():
        with _written(root, plan.to_write):
            return ("Nix is not installed here: flake.nix was not evaluated after the change",)
    _check_shape(nix, flake)
    return _check_outputs(plan, nix, flake)


@contextmanager
def _written(root: Path, changes: Sequence[FileChange]) -> Iterator[None]:
    """Write *changes*; take them back where the writing, or the block, fails."""
    done: list[FileChange] = []
    made: list[Path] = []
    try:
        for change in changes:
            if read_text(root / change.path) != change.before:
                raise InputError(
                    f"{change.path} was changed meanwhile", hint="nothing was written: try again"
                )
            path = _target(root, change.path)
            made += _make_directory(path.parent)
            done.append(change)
            _write(path, change.after)
        yield
    except BaseException:
        for change in reversed(done):
            _take_back(root / change.path, change.before)
        for directory in reversed(made):
            with explained(f"removing {directory}"):
                directory.rmdir()
        raise


def _target(root: Path, path: str) -> Path:
    """Return the file to write, past symlinks, which may not lead out of the repository."""
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        raise InputError(
            f"{path} lies outside of the repository, at {target}",
            hint="nothing was written: a symlink leads there",
        )
    return target


def _make_directory(directory: Path) -> list[Path]:
    with explained(f"making {directory}"):
        if directory.exists():
            return []
        made = _make_directory(directory.parent)
        directory.mkdir()
        return [*made, directory]


def _write(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    with unnamed(path.parent, f"writing {path}") as file:
        file.write(text.encode())
        file.keep(path, mode)


def _take_back(path: Path, before: str | None) -> None:
    if before is not None:
        _write(path.resolve(), before)
    else:
        path.unlink(missing_ok=True)


def _check_shape(nix: Nix, flake: FileChange) -> None:
    """Ask Nix itself whether the change added what it should, and nothing else."""
    assert flake.before is not None
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as name:
        try:
            before = _shape(nix, Path(name), flake.before)
        except NixFailed as error:
            raise InputError(
                "flake.nix cannot be read by Nix as it is", detail=error.detail
            ) from error
        try:
            after = _shape(nix, Path(name), flake.after)
        except NixFailed as error:
            raise _refused(error.detail) from error
    if after["inputs"] != before["inputs"] or not after["had"]:
        raise _refused(f"its inputs would be {json.dumps(after['inputs'])}")
    if set(after["asks"]) - {"nix-seed", "self"} != set(before["asks"]) - {"nix-seed", "self"}:
        raise _refused(f"outputs would take {', '.join(after['asks'])}")


def _shape(nix: Nix, directory: Path, text: str) -> Any:
    path = directory / "flake.nix"
    path.write_text(text, newline="")
    doing = "reading the changed flake.nix"
    nix.run("nix-instantiate", ["--parse", str(path)], doing)
    arguments = ["--eval", "--strict", "--json", "--expr", f"({_SHAPE}) {path}"]
    return json.loads(nix.run("nix-instantiate", arguments, doing))


def _check_outputs(plan: InitPlan, nix: Nix, flake: FileChange) -> tuple[str, ...]:
    """Write, and evaluate the flake before and after, where its inputs can be had."""
    root = plan.repository.root
    careful = Nix(nix.store, nix.bin_dir, {**nix.settings, **_OFFLINE})
    with tempfile.TemporaryDirectory(prefix="nix-seed-") as name:
        stub = Path(name)
        (stub / "flake.nix").write_text(_STUB)
        directory = (root / flake.path).parent
        try:
            before = _packages(careful, directory, None)
        except NixSeedError as error:
            before, words = None, error.message
        with _written(root, plan.to_write):
            if before is None:
                return (f"flake.nix was parsed, not evaluated: that failed before, too ({words})",)
            try:
                after = _packages(careful, directory, stub)
            except NixFailed as error:
                raise _refused(error.detail) from error
            _compare(before, after)
    return ()


def _packages(nix: Nix, directory: Path, stub: Path | None) -> dict[str, list[str]]:
    arguments = ["eval", "--json", "--no-write-lock-file"]
    arguments += ["--override-input", "nix-seed", f"path:{stub}"] if stub else []
    arguments += ["--apply", "outputs: builtins.mapAttrs (_: builtins.attrNames) outputs"]
    doing = "evaluating the flake's packages"
    try:
        text = nix.run("nix", [*arguments, f"{directory}#packages"], doing)
    except NixFailed as error:
        if "does not provide attribute" in (error.detail or ""):
            return {}
        raise
    found: dict[str, list[str]] = json.loads(text)
    return found


def _compare(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    lost = {
        f"{system}.{name}"
        for system, names in before.items()
        for name in names
        if name not in after.get(system, ())
    }
    if lost:
        raise _refused(f"it would lose {', '.join(sorted(lost))}")
    if not any("seed" in names for names in after.values()):
        raise _refused("no system has a package seed afterwards")


def _refused(detail: str | None) -> CheckedFalse:
    return CheckedFalse(
        "with the lines for nix-seed, flake.nix would not be what it should; nothing was written",
        detail=detail,
        hint="leave --flake out: a seed needs no lines in the flake; or write them by hand",
    )
