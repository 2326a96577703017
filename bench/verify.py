"""Verifying: 3 builders x 4 systems offline, the whole command; and 10,000 attestations.

The second must be linear: the time per attestation at 10,000 is compared with that at 1,000.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from nix_seed.formats.oci.manifest import Index, MediaType, platform_of
from nix_seed.trust.rules.claims import claims_of, examine, trust_of
from nix_seed.trust.rules.policy_file import parse_policy
from nix_seed.trust.rules.quorum import evaluate_quorum
from support.trust import COMMIT, TREES, World, make_image

__all__ = ["Row", "main", "run"]

SYSTEMS = ("x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin")
Row = tuple[str, float, str, float | None]
"""What was measured, its value, the unit, and the most it may be."""

_RUNS = 5


def run(sizes: tuple[int, int] = (1_000, 10_000)) -> list[Row]:
    """Measure everything; a few seconds for each thousand attestations."""
    with tempfile.TemporaryDirectory() as directory:
        whole = _command(Path(directory))
    small, large = (_attestations(size) for size in sizes)
    return [
        ("verify, 3 builders x 4 systems, offline, start-up included", whole, "s", 0.5),
        (f"{sizes[0]} attestations, each", small / sizes[0] * 1e6, "us", None),
        (f"{sizes[1]} attestations, each", large / sizes[1] * 1e6, "us", None),
        ("growth per attestation", (large / sizes[1]) / (small / sizes[0]), "x", 1.3),
    ]


def _command(root: Path) -> float:
    """Return the seconds of the fastest of some runs, in a process of its own."""
    world = World(root)
    world.head["systems"] = "[" + ", ".join(f'"{system}"' for system in SYSTEMS) + "]"
    children = []
    for system in SYSTEMS:
        image = make_image(world.store, root / system, system, TREES, system)
        world.publish("alice", "bob", "carol", image=image)
        children.append(replace(image.descriptor, platform=platform_of(system)))
    world.store.put_manifest(Index(tuple(children)).dump(), MediaType.INDEX, "all")
    command = [
        *(sys.executable, "-m", "nix_seed", "verify", f"oci:{root}/images:all"),
        *("--policy", str(world.write_policy()), "--commit", str(COMMIT)),
    ]
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def _attestations(number: int) -> float:
    """Return the seconds of processor time that judging *number* attestations takes."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        policy = parse_policy(world.policy().encode(), "trust.toml", now)
        signed = [
            world.sign(world.says(world.BUILDERS[i % 3], finished_on=_time(i)))
            for i in range(number)
        ]
        # One proof does for all: what is measured is reading and checking, not the log.
        entry = world.bundle(signed[0]).tlog_entries
        texts = [each.logged(entry).dump() for each in signed]
    start = time.process_time()
    trust = trust_of(policy, None)
    findings = [examine("here", text, trust) for text in texts]
    result = evaluate_quorum(
        policy, world.says("alice").agreement, claims_of(findings, policy), now
    )
    assert len(result.claims) == number
    return time.process_time() - start


def _time(number: int) -> str:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> int:
    """Print the table; exit 1 if a figure is missed."""
    missed = False
    for name, value, unit, most in run():
        target = "" if most is None else f"   (at most {most} {unit})"
        missed |= most is not None and value > most
        print(f"{name:60} {value:8.2f} {unit}{target}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
