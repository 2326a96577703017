"""A registry that takes its time: nobody looks at a terminal that shows nothing."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nix_seed.registry.credentials import Credential, Keyring
from support.quirks import PASSWORD, USER, Query, Reply, quirky_registry
from support.repositories import Registry
from support.seed_images import seed_image
from support.terminal import in_terminal
from support.trust import COMMIT, World

pytestmark = pytest.mark.slow
DELAY = 1.5  # seconds, for each of the first answers


@dataclass
class Slow:
    """The registry's *host* and a *world* in it; *answered*: when it gave each answer."""

    host: str = ""
    policy: str = ""
    root: Path = Path()
    left: int = 0
    answered: list[float] = field(default_factory=list)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    made = Slow(root=tmp_path_factory.mktemp("slow"))

    def quirk(query: Query, go: object) -> Reply:
        if made.left > 0:
            made.left -= 1
            time.sleep(DELAY)
            made.answered.append(time.monotonic())
        return go()  # type: ignore[operator,no-any-return]

    with quirky_registry(quirk, api=False) as running:
        keys = Keyring(given=Credential("the test", USER, PASSWORD))
        store = Registry(running.host, keyring=keys).repository("q/x")
        world = World(made.root, store)
        for name in ("alice", "bob"):
            world.publish(name)
        made.host, made.policy = running.host, str(world.write_policy())
        seed_image(made.root / "layout", "v1")
        yield made


COMMANDS = {
    "inspect": ("{ref}",),
    "verify": ("{ref}", "--policy", "{policy}", "--commit", str(COMMIT), "--quorum-only"),
    "lock": ("{ref}", "-o", "{root}/seed.lock"),
    "pull": ("{ref}", "oci:{root}/pulled"),
    "push": ("oci:{root}/layout:v1", "{host}/q/y:v1"),
    "hydrate": ("{ref}", "--root", "{root}/hydrated", "--no-verify"),
    "doctor": ("{ref}", "--engine", "bwrap"),
    "sbom": ("{ref}",),
    "report": ("{ref}", "-o", "{root}/report.html", "--policy", "{policy}", "--no-roots"),
    "mount": ("{ref}", "--root", "{root}/mounted", "--no-verify"),
    "ledger": ("show", "--from", "{host}/q/x", "--policy", "{policy}"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_something_moves_while_a_registry_is_waited_for(name: str, slow: Slow) -> None:
    ref = f"{slow.host}/q/x:seed"
    given = {"ref": ref, "host": slow.host, "policy": slow.policy, "root": slow.root}
    command = [sys.executable, "-m", "nix_seed", name]
    command += [each.format(**given) for each in COMMANDS[name]]
    env = {
        "NIX_SEED_REGISTRY_USERNAME": USER,
        "NIX_SEED_REGISTRY_PASSWORD": PASSWORD,
        "NIX_SEED_STATE": f"{slow.root}/state-{name}",
        "NIX_SEED_CACHE": f"{slow.root}/cache-{name}",
    }
    slow.answered.clear()
    slow.left = 2
    began = time.monotonic()
    shown = in_terminal(command, 100, env)
    assert len(slow.answered) == 2, shown.plain
    moments = [began + when for when, _ in shown.chunks]
    for answered in slow.answered:
        during = [each for each in moments if answered - DELAY <= each <= answered]
        assert len(during) > 1, f"{name} showed nothing for {DELAY} s"
        gaps = itertools.pairwise(during)
        assert max(later - earlier for earlier, later in gaps) < 1
