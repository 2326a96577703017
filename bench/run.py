"""``make bench``: every benchmark side by side with its peers, into ``bench/RESULTS.md``.

    python bench/run.py [--quick] [--only NAME ...] [--output FILE]

``--quick`` tries every part on something small, in seconds, and says nothing about speed.
``--only`` replaces just those parts of an earlier report of this machine, kept in the cache.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in (".", "tests")]

from bench.context import Context, working  # noqa: E402
from bench.table import Section, document  # noqa: E402
from support.distribution import WHOLE  # noqa: E402

__all__ = ["PARTS", "main", "measure"]

PARTS = {
    "blobs": "bench.blobs",
    "push": "bench.pushes",
    "planning": "bench.planning",
    "history": "bench.history",
    "first-build": "bench.first_build",
    "unpack": "bench.unpack",
    "shaped": "bench.shaped",
    "verify": "bench.checks",
}
_RESULTS = Path(__file__).with_name("RESULTS.md")
_PROGRAMS = {
    "Nix": ["nix", "--version"],
    "skopeo": ["skopeo", "--version"],
    "buildah": ["buildah", "--version"],
    "podman": ["podman", "--version"],
    "tar": ["tar", "--version"],
    "zstd": ["zstd", "--version"],
    "Go": ["go", "version"],
}
_FEATURES = ("sha_ni", "avx2", "avx512f")


def measure(name: str, context: Context) -> Section:
    """Run one part."""
    context.say(f"{name}:")
    start = time.perf_counter()
    section: Section = importlib.import_module(PARTS[name]).rows(context)
    context.say(f"  {name} took {time.perf_counter() - start:.0f} s")
    return section


def machine() -> str:
    """Describe the machine by what matters to a benchmark, and by nothing that names it."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = [name for name in _FEATURES if f" {name} " in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{os.uname().sysname} {os.uname().machine}"
    return (
        f"{os.cpu_count()} cores of {system} ({', '.join(found) or 'no special instructions'}), "
        f"{memory:.0f} GiB of memory, Python {sys.version.split()[0]}"
    )


def versions() -> str:
    """Return the versions of the programs that take part."""
    return ", ".join(f"{name} {_version(command)}" for name, command in _PROGRAMS.items())


def _version(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "(absent)"
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    words = text.splitlines()[0].replace("go1", "1").split() if text else []
    return next((w.strip(",v") for w in words if w.strip(",v*")[:1].isdigit()), "(unknown)")


def head() -> str:
    """Return the report's first lines."""
    today = datetime.datetime.now(datetime.UTC).date()
    load = os.getloadavg()[0]
    return f"""# Results

Written by `make bench` on {today}, on {machine()}.

With {versions()}.

Figures are ratios of what ran side by side, in turns, on one machine; seconds are there to judge
them by. The machine may have had other work: its load was {load:.1f} when this was written. So of
each contender the fastest round counts, and what takes long suffers less. Peers that are in no
package registry are measured where they are at hand: see `bench/push_peers.py`."""


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="only see that every part runs")
    parser.add_argument("--only", action="append", choices=[*PARTS], metavar="NAME")
    parser.add_argument("--output", type=Path, help=f"[{_RESULTS.name}, or nowhere if quick]")
    arguments = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(1)
    )  # servers are stopped, directories removed
    done, report = ({} if arguments.quick or not arguments.only else _load()), ""
    if not arguments.quick:
        os.environ[WHOLE] = "1"
    with working(_say, quick=arguments.quick) as context:
        for name in arguments.only or PARTS:
            done[name] = measure(name, context)
            report = document(head(), [done[name] for name in PARTS if name in done])
            if not arguments.quick:
                # After every part: a long run that is interrupted keeps what it has.
                _cache().write_bytes(pickle.dumps(done))
                (arguments.output or _RESULTS).write_text(report)
    if arguments.quick and arguments.output:
        arguments.output.write_text(report)
    elif arguments.quick:
        print(report)


def _say(line: str) -> None:
    print(line, flush=True)


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    (home / "nix-seed-tests").mkdir(parents=True, exist_ok=True)
    return home / "nix-seed-tests/bench.pickle"


def _load() -> dict[str, Section]:
    if not _cache().exists():
        return {}
    found: dict[str, Section] = pickle.loads(_cache().read_bytes())
    return found


if __name__ == "__main__":
    main()
