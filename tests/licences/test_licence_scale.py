"""Licences of a graph of 50,000 derivations are judged in bounded time and memory."""

from __future__ import annotations

from support.large_graph import measured

LARGE = """
import time
from pathlib import Path
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.licences.licences import Ancestry
from nix_seed.flake.rules.licence import Fact, Licence, LicencePolicy
from nix_seed.licences.rules.judge import judge
from nix_seed.roots.rules.roots import find_roots
from support.large_graph import at, read

start = time.process_time()
roots = find_roots([StorePath.parse(at(0) + ".drv")], read)
free, unfree = Licence("MIT", "redistributable"), Licence("unfree", "withheld")
facts = {at(n) + ".drv": Fact(free if n % 100 else unfree) for n in range(0, 50_000, 2)}
paths = [StorePath.parse(at(n)) for n in range(5_000)]
judgement = judge(paths, roots, facts, {}, LicencePolicy())
withheld = (*judgement.withheld, *judgement.withheld_elsewhere)
assert len(withheld) > 5_000
ancestry = Ancestry(roots, withheld)
last = StorePath.parse(at(49_999))
assert sum(ancestry.holds(last, item.path) for item in withheld[:3]) == 3
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(time.process_time() - start, peak / 1000)
"""


def test_fifty_thousand_derivations_are_judged_in_ten_seconds_and_500_mb() -> None:
    seconds, megabytes = measured(LARGE, 10)
    assert megabytes < 500
    assert seconds < 10
