"""Evaluates a flake's twin, whose files are all altered: what differs, its own source decides.

Where its code asks whether files are there, one more copy answers otherwise. A twin is a copy of
the flake's tree, evaluated as purely as the flake: its inputs are pinned by the same lock file.
Nothing of it is built, save what evaluation itself builds.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nix_seed.core.errors import CouldNotCheck, NixFailed
from nix_seed.core.files import files_below
from nix_seed.core.values import dataclass
from nix_seed.flake.nix import DerivationReader, FlakeMetadata, Nix
from nix_seed.flake.nix_code import call_nix_half
from nix_seed.flake.own_source import OwnSource
from nix_seed.flake.rules import existence
from nix_seed.flake.rules.alter import FURTHER_FILE, alter, alter_carefully, alter_values
from nix_seed.flake.rules.frontier import Twin
from nix_seed.formats.nix.store_path import StorePath

# Another commit, so many seconds later that each part of the date is another: 401 days and a bit.
REVISION = "5eed" * 10
_LATER = 401 * 86400 + 3661


@dataclass(frozen=True, slots=True)
class TwinAnswer:
    """What another tree evaluates to: outputs that do not throw, and all that makes them.

    *source* is its tree, *inputs* are those of its inputs. *careful* tells that some files were
    left alone, *thrown* that some outputs throw.
    """

    outputs: frozenset[str]
    derivations: frozenset[StorePath]
    inputs: Mapping[str, str]
    source: StorePath
    careful: bool = False
    thrown: bool = False


# How the twin's files are altered, the first that evaluates: are there further files?
TWINS = ((True, alter), (False, alter), (False, alter_carefully))


def evaluate_twin(
    nix: Nix, metadata: FlakeMetadata, arguments: Mapping[str, Any]
) -> TwinAnswer | NixFailed:
    """Return what the twin of the flake evaluates to, or why it does not.

    A flake may read every file of a directory as code: then no further files are added. It may take
    no other lock file, version or list: then these are left alone.
    """
    problem: NixFailed | None = None
    empty: TwinAnswer | None = None
    source = nix.at(metadata.source)
    for further, change in TWINS:
        careful = change is alter_carefully
        try:
            with altered(source, further=further, change=change) as tree:
                _set_time(tree, metadata)
                url = _url(tree, nix.hash_path(tree), metadata)
                answer = _ask(nix, url, arguments, "evaluating the altered flake")
        except NixFailed as error:
            problem = problem or error
            continue
        if answer.outputs or not answer.thrown:
            return replace(answer, careful=careful)
        empty = empty or answer
    if empty is not None:
        return empty
    assert problem is not None
    return problem


def evaluate_otherwise(
    nix: Nix, metadata: FlakeMetadata, arguments: Mapping[str, Any]
) -> tuple[existence.Questions, TwinAnswer | NixFailed | None]:
    """Return what the flake's code asks of its files, and its outputs where the answer is another.

    The files are the flake's own, unaltered: what comes out otherwise, the answer alone decides.
    """
    source = nix.at(metadata.source)
    questions = read_questions(source)
    problem: NixFailed | None = None
    for asked in choose_asked(questions, metadata.revision is not None):
        # What values, and files that are there, decide stays unseen then, which is said.
        unread = sorted((questions.data - asked.data) | (questions.paths - asked.paths))
        guessed = questions.reads if questions.guessed != asked.guessed else ()
        told = replace(asked, unclear=(*asked.unclear, *unread, *guessed))
        try:
            with answered_otherwise(source, asked) as tree:
                _set_time(tree, metadata)
                url = _url(tree, nix.hash_path(tree), metadata, revision=not asked.revision)
                doing = "evaluating the flake with files added and removed"
                return told, _ask(nix, url, arguments, doing)
        except NixFailed as error:
            problem = problem or error
    return questions, problem


def choose_asked(
    questions: existence.Questions, committed: bool = True
) -> tuple[existence.Questions, ...]:
    """Return which of the *questions* to answer otherwise: all, or fewer where that fails."""
    # Other values may choose what is not there. A flake may take every directory for a package:
    # then no further ones are added. Then come those alone that are like what is there. Last, files
    # that are asked for stay: code may ask whether its own library is there.
    named = replace(questions, guessed=frozenset())
    same = replace(named, data=frozenset())
    flat = replace(same, folders=False, places=frozenset())
    plain = replace(flat, names=frozenset(), ends=frozenset())
    like = replace(plain, kinds=frozenset(), starts=frozenset())
    still = replace(like, paths=frozenset())
    return tuple(
        asked
        for asked in dict.fromkeys((questions, named, same, flat, plain, like, still))
        if asked.paths
        or asked.data
        or asked.guessed
        or asked.lists
        or (asked.revision and committed)
    )


def _ask(nix: Nix, url: str, arguments: Mapping[str, Any], doing: str) -> TwinAnswer:
    value = call_nix_half(nix, "twin", url, arguments, doing)
    outputs = {
        entry["output"]: entry["context"] for entry in value["outputs"] if "context" in entry
    }
    roots = {path for context in outputs.values() for path in context if path.endswith(".drv")}
    derivations = nix.requisites(map(StorePath.parse, roots))
    thrown = len(outputs) < len(value["outputs"])
    source = StorePath.containing(value["source"])
    return TwinAnswer(frozenset(outputs), derivations, value["inputs"], source, thrown=thrown)


def find_left(answer: object, known: Collection[StorePath]) -> frozenset[StorePath]:
    """Return the trees that an *answer* leaves in the store; *known* are the flake's own."""
    if not isinstance(answer, TwinAnswer):
        return frozenset()
    more = answer.derivations.difference(known)
    return frozenset({answer.source, *more} - _only_derivations(more))


def compare(
    nix: Nix,
    read: DerivationReader,
    metadata: FlakeMetadata,
    known: frozenset[StorePath],
    answer: TwinAnswer | NixFailed,
    otherwise: tuple[existence.Questions, TwinAnswer | NixFailed | None] = (
        existence.Questions(),
        None,
    ),
) -> Twin:
    """Read the answers; *known* is all that makes the flake's own outputs."""
    if isinstance(answer, NixFailed):
        return Twin(problem=reason_of(answer.detail or answer.message))
    derivations = answer.derivations
    come, gone = _only_derivations(derivations - known), _only_derivations(known - derivations)
    made_by = [read(path) for path in come]
    outcomes = [output.path for item in made_by for output in item.outputs.values()]
    made = frozenset(path for path in outcomes if path is not None)
    marks = _marks(metadata)
    fixed = (out for each in made_by if each.is_fixed_output for out in each.outputs.values())
    named = (out for out in fixed if out.path and any(mark in out.path.name for mark in marks))
    dated = frozenset(out.hash for out in named)
    chosen = existence.find_chosen(read, gone, come, OwnSource(metadata.source, nix.root))
    twin = Twin(answer.outputs, derivations, made, answer.inputs, dated=dated, chosen=chosen)
    twin = replace(twin, careful=answer.careful)
    questions, other = otherwise
    both = _only_derivations(known)
    moved = _chosen_from_nothing(nix, read, known & derivations)
    if isinstance(other, NixFailed):
        reason = reason_of(other.detail or other.message)
        return replace(twin, questions=questions, moved=moved, unanswered=reason)
    if other is not None:
        others = _only_derivations(other.derivations)
        moved |= existence.find_moved(read, both - others, others - both, both - derivations)
    return replace(twin, questions=questions, moved=moved)


def _chosen_from_nothing(
    nix: Nix, read: DerivationReader, paths: Collection[StorePath]
) -> frozenset[StorePath]:
    """Return what is built from a source without files: a filter chose none of them yet."""
    empty = [path for path in paths if path.name[-4:] != ".drv" and is_empty(nix.root, path)]
    return (
        existence.find_built_from(read, _only_derivations(paths), empty) if empty else frozenset()
    )


def is_empty(root: Path, source: StorePath) -> bool:
    """Tell whether *source*, in the store below *root*, is a directory that holds no files."""
    place = root / str(source).lstrip("/")
    return place.is_dir() and not place.is_symlink() and not any(files_below(place, links=True))


def _marks(metadata: FlakeMetadata) -> tuple[str, ...]:
    """Return how a name can hold the commit of the twin, or its time."""
    if metadata.last_modified is None:
        return (REVISION[:7],)
    later = metadata.last_modified + _LATER
    day = time.gmtime(later)
    return (REVISION[:7], str(later), *(time.strftime(f, day) for f in ("%Y%m%d", "%Y-%m-%d")))


def _only_derivations(paths: Collection[StorePath]) -> frozenset[StorePath]:
    return frozenset(path for path in paths if path.name.endswith(".drv"))


def reason_of(text: str) -> str:
    """Return the last line of Nix's *text* that says why, rather than a hint or a trace."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error:") and line != "error:"]
    return (said or lines or [text])[-1]


@contextmanager
def altered(
    source: Path,
    *,
    further: bool,
    tracked: Collection[str] | None = None,
    change: Callable[[str, bytes], bytes] = alter,
) -> Iterator[Path]:
    """Copy the tree at *source* with other bytes in each file, and *further* files if asked.

    With *tracked*, only the files of these names are the flake's.
    """
    with _copied(source, change, tracked) as tree:
        for place, _, _ in list(os.walk(tree)) if further else ():
            Path(place, FURTHER_FILE).write_text("\n")
        yield tree


@contextmanager
def answered_otherwise(
    source: Path, questions: existence.Questions, tracked: Collection[str] | None = None
) -> Iterator[Path]:
    """Copy the tree at *source*, where what is asked for is there exactly if it was not."""
    with _copied(source, lambda _, data: data, tracked) as tree:
        _turn(tree, questions)
        yield tree


@contextmanager
def _copied(
    source: Path, alter_file: Callable[[str, bytes], bytes], tracked: Collection[str] | None
) -> Iterator[Path]:
    """Copy the tree at *source*, with each file passed through *alter_file*."""
    try:
        with tempfile.TemporaryDirectory(prefix="nix-seed-") as directory:
            tree = Path(directory, "source")
            tree.mkdir()
            for name in _files(source) if tracked is None else tracked:
                _copy(source / name, tree / name, alter_file)
            yield tree
    except (OSError, RecursionError) as error:
        raise CouldNotCheck(
            f"cannot copy the flake's source {source}: {getattr(error, 'strerror', error)}",
            hint="a garbage collection may have removed it: run the command again",
        ) from error


def read_questions(source: Path, tracked: Collection[str] | None = None) -> existence.Questions:
    """Read what the Nix code of the tree at *source* asks of its files."""
    code = {}
    names = tuple(_files(source) if tracked is None else tracked)
    for name in names:
        path = source / name
        if name.endswith(".nix") and path.is_file() and not path.is_symlink():
            code[name] = path.read_text("utf-8", "replace")
    questions = existence.find_questions(code)
    data, guessed = (
        frozenset(name for path, name in _below(source, files).items() if _has_values(path))
        for files in (questions.data, existence.choose_guessed(questions, names))
    )
    return replace(questions, data=data, guessed=guessed)


def _below(tree: Path, names: Iterable[str]) -> dict[Path, str]:
    """Return where *names* are in *tree*, and the first name of each.

    It leaves out those where a link on the way leads out of the tree, or to itself.
    """
    top, found = os.path.realpath(tree), dict[Path, str]()
    for name in sorted(names):
        path = Path(os.path.realpath((tree / name).parent), os.path.basename(name))
        if path.is_relative_to(top) and not any(parent.is_symlink() for parent in path.parents):
            found.setdefault(path, name)
    return found


def _has_values(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return False
    data = path.read_bytes()
    return alter_values(path.name, data) != data


_MOST_BYTES = 1 << 20


def _turn(tree: Path, questions: existence.Questions) -> None:
    """Take away what is asked for and there, add what is not; one more file of each kind.

    What is read gets other values.
    """
    for path in _below(tree, questions.data | questions.guessed):
        path.write_bytes(alter_values(path.name, path.read_bytes()))
    for path in _below(tree, questions.paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            path.unlink()
        elif not any(parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_EMPTY.get(path.suffix, "\n"))
    if questions.lists:
        wanted = existence.choose_wanted(questions, Path(FURTHER_FILE).stem)
        for number, (place, folders, files) in enumerate(list(os.walk(tree))):
            more = wanted if number * len(wanted) < _MOST_FILES else {}
            _add_likes(Path(place), (folders, files), questions, more)


_MOST_FILES = 10_000


def _add_likes(
    place: Path,
    there: tuple[list[str], list[str]],
    questions: existence.Questions,
    wanted: Mapping[str, str],
) -> None:
    """Add to a directory what is like the directories and files in it (*there*), and *wanted*."""
    folders, files = there
    names = {*folders, *files}
    for further, name in existence.choose_likes(files, names).items():
        shutil.copy(place / name, place / further, follow_symlinks=False)
    for name, text in wanted.items():
        if os.path.lexists(place / name):
            continue
        if like := next((file for file in files if text in file), None):
            shutil.copy(place / like, place / name, follow_symlinks=False)
        else:
            (place / name).write_text(_EMPTY.get(os.path.splitext(name)[1], "\n"))
    if not questions.folders:
        return
    # Directories above come first: what is copied has none of these further files yet.
    own = [name for name in folders if not (place / name).is_symlink()]
    for further, name in existence.choose_likes(own, names).items():
        shutil.copytree(place / name, place / further, symlinks=True)
    for name in questions.places if folders else {Path(FURTHER_FILE).stem, *questions.places}:
        if not os.path.lexists(place / name):
            (place / name).mkdir()
            (place / name / "default.nix").write_text("{ ... }: { }\n")


_EMPTY = {".nix": "{ }\n", ".json": "{ }\n"}


def _files(source: Path) -> Iterator[str]:
    """Name the files and links below *source*."""
    return (os.path.relpath(name, source) for name in files_below(source, links=True))


def _copy(source: Path, target: Path, alter_file: Callable[[str, bytes], bytes]) -> None:
    """Copy a file altered, a link as it is; what is tracked and gone, or a submodule, is not."""
    if source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.readlink(source))
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_size > _LARGEST:
            # Nobody reads that as text, and memory may not hold it.
            shutil.copyfile(source, target)
            with target.open("ab") as file:
                file.write(alter_file(source.name, b"\0").removeprefix(b"\0"))
        else:
            target.write_bytes(alter_file(source.name, source.read_bytes()))
        shutil.copymode(source, target)


_LARGEST = 16 << 20


def _set_time(tree: Path, metadata: FlakeMetadata) -> None:
    """Date the tree as the URL does: Nix compares with the newest file."""
    if metadata.last_modified is not None:
        later = metadata.last_modified + _LATER
        for directory, directories, files in os.walk(tree):
            for name in [*files, *directories]:
                os.utime(os.path.join(directory, name), (later, later), follow_symlinks=False)
        os.utime(tree, (later, later))


def _url(tree: Path, nar_hash: str, metadata: FlakeMetadata, *, revision: bool = True) -> str:
    """Name the twin purely, with another time, and a *revision* whatever the flake has.

    What an uncommitted change makes of `self.rev or "dirty"` then comes out otherwise too.
    """
    query = {"narHash": nar_hash}
    if revision:
        query["rev"] = REVISION[: len(metadata.revision or REVISION)]
    if revision and metadata.rev_count is not None:
        query["revCount"] = str(metadata.rev_count + 1)
    if metadata.last_modified is not None:
        query["lastModified"] = str(metadata.last_modified + _LATER)
    if metadata.directory:
        query["dir"] = metadata.directory
    return f"path:{quote(str(tree))}?" + "&".join(
        f"{name}={quote(text, safe='')}" for name, text in query.items()
    )
