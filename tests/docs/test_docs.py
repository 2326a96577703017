"""What the documents say is run: commands, snippets of Nix and JSON, and the demo.

Blocks marked ``sh`` are run line by line, in order, in a copy of an example project; the marks
``sh demo`` and ``sh test`` name targets of the Makefile; in ``sh engines`` the commands of
container engines are left to the tests of the contract.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from nix_seed.cli.main import cli
from support import built, warm
from support.distribution import make_project, nix_env, require_nix
from support.programs import need

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "decisions"),
]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENGINES = {"podman", "docker"}


@dataclass(frozen=True)
class Block:
    document: Path
    mark: str
    text: str

    @property
    def lines(self) -> Iterator[list[str]]:
        """Its commands, split as a shell would, without comments."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def blocks(document: Path) -> list[Block]:
    return [Block(document, *found.groups()) for found in BLOCK.finditer(document.read_text())]


ALL = [block for document in DOCUMENTS for block in blocks(document)]


@pytest.fixture(scope="module")
def place(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project("hello", tmp_path_factory.mktemp("docs") / "hello", distribution)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = str(built.layers(tmp_path_factory.mktemp("cache") / "layers"))
    path = warm.path(tmp_path_factory.mktemp("bin"))
    return nix_env() | {"NIX_SEED_CACHE": cache, "PATH": path}


@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if any(b.mark in ("sh", "sh engines") for b in blocks(d))],
    ids=lambda document: document.name,
)
def test_the_commands_work(document: Path, place: Path, environment: dict[str, str]) -> None:
    for block in blocks(document):
        if block.mark not in ("sh", "sh engines"):
            continue
        for command in block.text.splitlines():
            words = shlex.split(command, comments=True)
            if not words:
                continue
            if block.mark == "sh engines" and words[0] in ENGINES:
                continue
            wanted = command.split("&&")[0] if ENGINES & set(words) else command
            need(words[0])
            done = subprocess.run(
                ["bash", "-euc", wanted],
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{document.name}: {command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", [b for b in ALL if b.mark in ("sh demo", "sh test")], ids=repr)
def test_make_has_the_target(block: Block) -> None:
    [[program, target]] = block.lines
    assert program == "make"
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("block", [b for b in ALL if b.mark == "nix"], ids=lambda b: b.text[:40])
def test_nix_is_nix(block: Block) -> None:
    require_nix()
    # A snippet is an expression, or attributes to add to a flake's outputs.
    answers = [parse_nix(f"pkgs: system: self: nix-seed:\n{form}") for form in forms(block.text)]
    assert "" in answers, answers


def forms(text: str) -> tuple[str, str]:
    return f"{{\n{text}\n}}", f"(\n{text}\n)"


def parse_nix(text: str) -> str:
    """Return Nix's complaint, empty if it has none."""
    command = ["nix-instantiate", "--parse", "-"]
    done = subprocess.run(
        command, input=text, env=nix_env(), capture_output=True, text=True, check=False
    )
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("block", [b for b in ALL if b.mark == "json"], ids=lambda b: b.text[:40])
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def commands_in(text: str) -> Iterator[str]:
    """Yield each command of ours, from blocks of whatever mark and from running text."""
    code = [found[2] for found in BLOCK.finditer(text)]
    text = BLOCK.sub("", text)
    code += re.findall(r"^    (.+)$", text, re.MULTILINE)
    code += [found.replace("\n", " ") for found in re.findall(r"`([^`]+)`", text)]
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        # Up to what ends a command, or begins what it is an example of.
        yield from re.findall(r"(?<![\w/.-])nix-seed (?:-- )?([a-z-][^#|&;)<…\"`]*)", line)


@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if document.name != "commands.md"],  # made from the code
    ids=lambda document: document.name,
)
def test_commands_and_their_options_exist(document: Path) -> None:
    """Also of those that name registries nobody can reach; ``test_readme.py`` runs README's."""
    for line in commands_in(document.read_text()):
        words = line.replace("'", " ").split()
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name = words.pop(0)
            if name.isupper() or not name.isascii():
                break  # COMMAND: whichever
            found = command.get_command(click.Context(command), name.rstrip(".,:"))
            assert found is not None, f"{document.name}: nix-seed {line}"
            command = found
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        given = itertools.takewhile(lambda word: word != "--", words)
        named = {word.partition("=")[0] for word in given if re.match(r"--?[a-z]", word)}
        assert named <= options | {"-h", "--help"}, f"{document.name}: nix-seed {line}"


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        for target in re.findall(r"`make ([a-z/.-]+)", document.read_text()):
            wanted = rf"^{re.escape(target)}:"
            assert re.search(wanted, makefile, re.MULTILINE), f"{document.name}: make {target}"


def test_files_that_are_named_exist() -> None:
    """In documents, records of decisions and docstrings: `trust/rules/bundle.py`, `quorum.py`."""
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    records = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[be]*/**/*.md")]
    places = (ROOT, ROOT / "src", ROOT / "src/nix_seed", ROOT / "tests")
    for file in (*records, *sources):
        for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|nix|toml))`", file.read_text()):
            known = any((place / name).exists() for place in (*places, file.parent))
            assert known, f"{file.relative_to(ROOT)}: {name}"


def test_the_demo_ends_with_a_program_built_offline(tmp_path: Path) -> None:
    require_nix()
    need("bwrap")
    env = nix_env() | {"NIX_SEED_DEMO": str(tmp_path / "demo")}
    env["PATH"] = f"{ROOT / '.venv/bin'}{os.pathsep}{env['PATH']}"
    env.pop("CI", None)
    try:
        done = subprocess.run(
            [ROOT / "tools/demo"], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) <= 45
        assert "         making its seed ..." in lines, "it is silent for no more than one step"
        assert "         usage: greet WORD NAME (built inside a seed)" in lines
        before, after = re.findall(r"^ +(sha256:\w{64})$", done.stdout, re.MULTILINE)
        assert before == after
        assert (tmp_path / "demo/project/flake.lock").is_file()
        assert (tmp_path / "demo/seed/index.json").is_file()
        # Of its forty commands each would load all that the others have loaded.
        place = tmp_path / "checkout"
        (place / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools/demo-trust", place / "tools")
        warm.program(place / ".venv/bin")
        told = subprocess.run(
            [place / "tools/demo-trust"], env=env, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stdout + told.stderr
        assert len(told.stdout.splitlines()) <= 72, "more than two screens"
        assert max(map(len, told.stdout.replace(str(tmp_path), "").splitlines())) <= 120
        assert re.search(r"ALARM: Commit [0-9a-f]{12} was released twice", told.stdout)
        assert "\nGo on, in " in told.stdout
    finally:
        subprocess.run(["chmod", "-R", "u+w", tmp_path], check=False)
        shutil.rmtree(tmp_path, ignore_errors=True)
