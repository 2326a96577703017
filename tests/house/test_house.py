"""The house: rooms in one line, each importing only from rooms before it. All offenders at once."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nix_seed

ROOT = Path(nix_seed.__file__).parent
ROOMS = [
    "core",
    "formats",
    "flake",
    "roots",
    "licences",
    "registry",
    "image",
    "use",
    "logs",
    "trust",
    "sbom",
    "release",
    "outputs",
    "audit",
    "report",
    "setup",
    "cli",
]
# Nobody imports the add-on; it may import whatever it is added to.
ADD_ON = "evm"
# The outside, which `rules/` never touches: no clock, network, environment, file or process.
OUTSIDE = {
    "subprocess",
    "socket",
    "ssl",
    "urllib3",
    "http",
    "time",
    "random",
    "secrets",
    "os",
    "tempfile",
    "shutil",
    "sigstore",
}
PURE_CALLS = {"open", "datetime.now", "date.today", "datetime.utcnow"}
MOST_MODULES, MOST_LINES, MOST_PARAMETERS = 25, 500, 6

FILES = {path: path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py"))}


@cache
def tree(path: Path) -> ast.Module:
    """Return the file's syntax, read when it is asked for: three processes import this module."""
    return ast.parse(path.read_text())


def dotted(path: Path) -> str:
    """Return the module's name, as an import spells it."""
    parts = FILES[path].with_suffix("").parts
    return ".".join(("nix_seed", *parts)).removesuffix(".__init__")


NAMES = {dotted(path): path for path in FILES}


def room(path: Path) -> str:
    """Return the room that *path* stands in, empty for the package itself."""
    parts = FILES[path].parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[str]:
    """Yield each module that the file imports: lazily and for type checking, too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in NAMES else str(node.module)


def own_imports(path: Path) -> set[Path]:
    """Return the project's files that the file imports, itself not counted."""
    return {NAMES[name] for name in imports(path) if name in NAMES} - {path}


def test_rooms_stand_in_one_line() -> None:
    strangers = {room(path) for path in FILES} - {*ROOMS, ADD_ON, ""}
    wrong = [
        f"{FILES[path]} imports {FILES[other]}"
        for path in FILES
        if room(path) in ROOMS
        for other in own_imports(path)
        if room(other) not in ROOMS[: ROOMS.index(room(path)) + 1]
    ]
    assert not [*strangers, *wrong], "\n".join([*strangers, *wrong])


def test_rules_are_pure() -> None:
    wrong = []
    for path, relative in FILES.items():
        if "rules" not in relative.parts:
            continue
        taken = {name.split(".")[0] for name in imports(path)} & OUTSIDE
        below = [
            FILES[other]
            for other in own_imports(path)
            if room(other) not in ("core", "formats") and "rules" not in FILES[other].parts
        ]
        called = {
            ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)
        } & PURE_CALLS
        if taken or below or called:
            wrong.append(f"{relative}: {[*taken, *map(str, below), *called]}")
    assert not wrong, "\n".join(wrong)


def test_no_circle() -> None:
    """No two modules need one another, not even lazily."""
    try:
        list(TopologicalSorter({path: own_imports(path) for path in FILES}).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(str(FILES[path]) for path in error.args[1])) from None


def test_what_is_imported_lazily_is_whole_modules() -> None:
    """A name of a module, or a package, would be loaded at once."""
    wrong = [
        f"{FILES[path]}: {ast.unparse(node)}"
        for path in FILES
        for block in ast.walk(tree(path))
        if isinstance(block, ast.With) and ast.unparse(block.items[0]) == "lazily()"
        for node in block.body
        if not isinstance(node, ast.ImportFrom)
        or any(
            f"{node.module}.{alias.name}" not in NAMES
            or NAMES[f"{node.module}.{alias.name}"].name == "__init__.py"
            for alias in node.names
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_are_of_a_size_to_find_ones_way_in() -> None:
    count: dict[Path, int] = defaultdict(int)
    for relative in FILES.values():
        count[relative.parent] += relative.name != "__init__.py"
    crowded = [f"{folder}: {each} modules" for folder, each in count.items() if each > MOST_MODULES]
    long = [
        f"{relative}: {lines} lines"
        for path, relative in FILES.items()
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
    ]
    assert not [*crowded, *long], "\n".join([*crowded, *long])


def test_a_name_has_one_meaning() -> None:
    """No public class stands twice."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, relative in FILES.items():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(relative))
    twice = [f"{name}: {', '.join(where)}" for name, where in found.items() if len(where) > 1]
    assert not twice, "\n".join(twice)


def test_functions_take_few_parameters() -> None:
    """Options of a command are the exception: click hands over each by its name."""
    wrong = []
    for path, relative in FILES.items():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.FunctionDef) or any(
                "option" in ast.unparse(each) or "argument" in ast.unparse(each)
                for each in node.decorator_list
            ):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            number = len([each for each in given if each.arg not in ("self", "cls")])
            if number > MOST_PARAMETERS:
                wrong.append(f"{relative} {node.name}: {number}")
    assert not wrong, "\n".join(sorted(wrong))


def test_the_package_offers_what_it_names() -> None:
    """Every name in ``__all__`` of the package is there, and they are sorted."""
    assert sorted(nix_seed.__all__) == list(nix_seed.__all__)
    assert all(hasattr(nix_seed, name) for name in nix_seed.__all__)
