"""docs/runbook.md: every ``sh runbook`` block is run, in order, in a world made for its section."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from attacks.promoted import PromotedWorld
from nix_seed.logs.embedded import EmbeddedLog
from support import warm
from support.trust import COMMIT

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^## ([^\n]*)$|^```sh runbook ?([a-z-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WANTED = re.compile(r"   # exit ([0-9])$")


@dataclass(frozen=True, slots=True)
class Section:
    """A section's commands, and the name of the world they are run in."""

    title: str
    world: str
    commands: tuple[str, ...]


def sections() -> Iterator[Section]:
    """Every section that has commands."""
    title, world, commands = "first", "", list[str]()
    for heading, mark, text in BLOCK.findall((ROOT / "docs/runbook.md").read_text()):
        if heading:
            if commands:
                yield Section(title, world, tuple(commands))
            title, world, commands = heading, "", []
        else:
            world = world or mark
            commands += text.splitlines()
    if commands:
        yield Section(title, world, tuple(commands))


def released(world: PromotedWorld) -> None:
    """All three builders agree, and rita released it."""
    world.attest_all("alice", "bob", "carol")
    world.promote("rita", "latest")


def dissent(world: PromotedWorld) -> None:
    """Released by alice and bob; then carol says otherwise."""
    world.attest_all("alice", "bob")
    world.promote("rita")
    world.publish("carol", image=world.other)


def two_roots(world: PromotedWorld) -> None:
    """Released; then another root is signed with rita's key."""
    released(world)
    world.publish_record(world.planned(world.backdoored), "rita")


def thief(world: PromotedWorld) -> None:
    """Attested, and then released as something else, with rita's key and by nobody else."""
    world.attest_all("alice", "bob", "carol")
    world.publish_record(world.planned(world.backdoored), "rita")


def log_down(world: PromotedWorld) -> None:
    """Attested in two logs, not yet released; and one of them is out of reach."""
    second = EmbeddedLog.create(world.root / "second", "second.example")
    key, nowhere = f'"{second.trusted.key}"', '"http://127.0.0.1:9"'
    world.logs.append(
        {
            "id": '"second"',
            "kind": '"tiles"',
            "origin": '"second.example"',
            "key": key,
            "url": nowhere,
        }
    )
    for image in world.images.values():
        for name in ("alice", "bob"):
            world.attach(world.bundle(world.sign(world.says(name, image)), world.log), image)


WORLDS: dict[str, Callable[[PromotedWorld], None]] = {
    "": released,
    "dissent": dissent,
    "two-roots": two_roots,
    "thief": thief,
    "log-down": log_down,
}


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.title)
def test_the_commands_work(section: Section, tmp_path: Path) -> None:
    world = PromotedWorld.fresh(tmp_path / "world")
    WORLDS[section.world](world)
    world.write_policy()
    env = os.environ | {
        "COMMIT": str(COMMIT),
        "NIX_SEED_STATE": str(tmp_path / "state"),
        "PATH": warm.path(tmp_path / "bin"),
    }
    for command in section.commands:
        found = WANTED.search(command)
        wanted = int(found.group(1)) if found else 0
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=world.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == wanted, f"{command}\n{done.stdout}{done.stderr}"


def test_every_world_is_used_and_known() -> None:
    assert {section.world for section in sections()} == set(WORLDS)
