"""Outputs of twenty packages on a fresh machine: none kept, ours, and Nix's own HTTP cache.

``python bench/outputs.py`` in the tests' environment prints one JSON object: seconds, and requests
to the registry and bytes from it, for a build of the flake in which one package changed; and what
pushing costs against ``nix copy`` to a directory. Registry and caches are on this machine.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from support.distribution import nix, nix_env  # noqa: E402
from support.faults import Proxy, fault_proxy  # noqa: E402
from support.output_world import (  # noqa: E402
    NUMBERS,
    Serving,
    Twenty,
    built_names,
    changed,
    twenty,
)
from support.registries import docker_registry  # noqa: E402
from support.seeds import remove_tree  # noqa: E402


def timed(serving: Serving, flake: str, store: Path) -> dict[str, Any]:
    """Build *flake* in the fresh *store* with that cache; say how long it took."""
    begin = time.monotonic()
    done = serving.build(flake, store)
    seconds = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    remove_tree(store)
    return {"seconds": round(seconds, 2), "built": len(built_names(done.stderr))}


def nearby(world: Twenty, root: Path, flake: str) -> dict[str, Any]:
    """Nix's own: copied to a directory with zstd, and served from there."""
    cache = root / "nix-cache"
    key = root / "nix.key"
    key.write_text(nix("key", "generate-secret", "--key-name", "bench"))
    public = subprocess.run(
        ["nix", "key", "convert-secret-to-public"],
        input=key.read_text(),
        env=nix_env(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    paths = nix("path-info", *(f"{world.project}#p{n}" for n in NUMBERS)).split()
    begin = time.monotonic()
    where = f"file://{cache}?compression=zstd&secret-key={key}"
    nix("copy", "--no-recursive", "--to", where, *paths)
    pushed = time.monotonic() - begin
    handler = functools.partial(_Quiet, directory=str(cache))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    found = timed(Serving(url, public, root), flake, world.fresh_store(root / "b"))
    server.shutdown()
    return found | {"pushSeconds": round(pushed, 2)}


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass


def ours(world: Twenty, root: Path, flake: str) -> dict[str, Any]:
    """Pushed to a registry, and served from it; once timed, once with its requests counted."""
    with docker_registry(root / "registry", password=False) as running:
        found = _through(world, root / "c", flake, f"{running.host}/timed")
        with fault_proxy(running.host) as proxy:
            target = f"{proxy.host}/counted"
            assert world.push(target).code == 0
            found["pushRequests"] = _count(proxy)
            with world.serving(target, root / "log") as serving:
                timed(serving, flake, world.fresh_store(root / "d"))
            found["requests"] = _count(proxy)
    return found


def _through(world: Twenty, store: Path, flake: str, target: str) -> dict[str, Any]:
    begin = time.monotonic()
    done = world.push(target)
    seconds = time.monotonic() - begin
    assert done.code == 0, done.err
    sent = json.loads(done.out)["sent"]
    with world.serving(target, store.parent / "log") as serving:
        found = timed(serving, flake, world.fresh_store(store))
    return found | {"pushSeconds": round(seconds, 2), "pushBytes": sent}


def _count(proxy: Proxy) -> dict[str, int]:
    kinds = Counter(
        f"{each.method} {'blob' if '/blobs/' in each.path else 'manifest'}" for each in proxy.seen
    )
    proxy.seen.clear()
    return dict(sorted(kinds.items()))


def main() -> None:
    """Measure, and print."""
    world = twenty()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        flake = f"{changed(world.project, root / 'project', 'p3')}#p20"
        none = Serving("", "", root)
        result = {
            "none": timed(none, flake, world.fresh_store(root / "a")),
            "nix": nearby(world, root, flake),
            "ours": ours(world, root, flake),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
