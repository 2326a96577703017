"""Our side of a race, in a process of its own so that its start-up and memory count.

``python -m bench.worker push PLAN REF CACHE`` or ``blobs PLAN zstd|gzip`` with a pickled plan;
prints JSON.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.reference import Reference
from nix_seed.formats.zstd import SeekTable
from nix_seed.image.build import Assembly, BuiltLayer
from nix_seed.image.layer_cache import LayerCache, LayerRecords
from nix_seed.image.plan import Plan
from nix_seed.image.push import push_image
from nix_seed.image.rules.frames import locate_paths
from nix_seed.registry.open import Stores

__all__ = ["dump_plan", "peak_mib"]


def dump_plan(plan: Plan, path: Path) -> Path:
    """Write *plan* where a worker finds it."""
    path.write_bytes(pickle.dumps(plan))
    return path


def peak_mib() -> float:
    """The most memory this process had resident so far, in MiB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def push(plan: Plan, reference: str, cache: Path) -> dict[str, Any]:
    target = Reference.parse(reference)
    stores = Stores(plain_http=True)
    pushed = push_image(
        Assembly(Nix(), LayerCache(cache)),
        plan,
        stores.repository(target),
        target,
        LayerRecords(cache / "pushed"),
        tags=("bench",),
    )
    layers = pushed.built.layers
    changed = _changed_bytes(pushed.built.plan, layers)
    return {
        "sent": pushed.sent,
        "read": sum(not layer.reused for layer in layers),
        "layers": len(layers),
        "changed": changed,
    }


def _changed_bytes(plan: Plan, layers: Sequence[BuiltLayer]) -> int:
    """Compressed bytes of just those paths that the plan's base does not have."""
    old = plan.base.spec.paths if plan.base is not None else {}
    total = 0
    for built in layers:
        if not built.paths:  # the container's
            continue
        places = locate_paths(SeekTable(built.layer.frames), [*map(StorePath.parse, built.paths)])
        assert places is not None, f"where the paths of {built.layer.descriptor.digest} lie"
        total += sum(end - start for path, (start, end) in places.items() if path not in old)
    return total


def main() -> None:
    what, plan = sys.argv[1], pickle.loads(Path(sys.argv[2]).read_bytes())
    assert what == "push", what
    result = push(plan, sys.argv[3], Path(sys.argv[4]))
    print(json.dumps(result | {"peak": peak_mib()}))


if __name__ == "__main__":
    main()
