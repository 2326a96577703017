"""A large output streams: neither memory nor a file of ours ever holds it whole."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import urllib.request
from pathlib import Path

from nix_seed.core.digests import Digest, NarHash
from nix_seed.formats.intoto.bundle import BUNDLE_V03
from nix_seed.formats.nix.nar import dump_tree
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.formats.oci.reference import Reference
from nix_seed.outputs.kept import keep, put_config
from nix_seed.outputs.rules.kept import KeptOutput, Stored
from nix_seed.outputs.rules.statement import OutputFact
from nix_seed.registry.open import Stores
from support.attestations import put
from support.output_scene import HASH, NOW, PATH, Scene
from support.registries import docker_registry

SIZE = 200 << 20
ALLOWED = 32 << 20  # beyond what Python and the modules take; it is a third of that
_MEASURED = """
import json, resource, sys
from pathlib import Path
from nix_seed.formats.oci.reference import Reference
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # no file holds it, either
"""
_PUSH = (
    _MEASURED
    + """
from nix_seed.core.digests import NarHash
from nix_seed.flake.nix import Nix
from nix_seed.formats.nix.store_path import PathInfo, StorePath
from nix_seed.outputs.nar import pack
from nix_seed.registry.open import Stores
target, root, path, nar_hash, size, expected = sys.argv[1:]
info = PathInfo(StorePath.parse(path), NarHash(nar_hash), int(size), ())
store, before = Stores().open(Reference.parse(target)), peak()
packed = pack(store, info, Nix(Path(root)), expected=bool(int(expected)))
print(json.dumps([packed.blob.digest.hex, packed.blob.size, packed.sent, peak() - before]))
"""
)
_SERVE = (
    _MEASURED
    + """
from datetime import UTC, datetime
from nix_seed.outputs.open import fresh_key, open_cache
from nix_seed.outputs.server import CacheServer, serving
from nix_seed.release.load import load_policy, verifiers_of
by = verifiers_of(load_policy(Path(sys.argv[2]), datetime.now(UTC)))
cache = open_cache(by, Reference.parse(sys.argv[1]), fresh_key())
with serving(CacheServer(cache)) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
    before = peak()
    print(flush=True)
    sys.stdin.readline()
    print(peak() - before)
"""
)


def write_half_random(path: Path) -> None:
    """Write a file of which every other megabyte does not compress."""
    path.parent.mkdir(parents=True)
    pick = random.Random(1)
    with path.open("wb") as file:
        for _ in range(SIZE >> 21):
            file.write(pick.randbytes(1 << 20) + bytes(1 << 20))


def test_a_large_output_streams(tmp_path: Path) -> None:
    scene, root = Scene(tmp_path / "scene"), tmp_path / "root"
    write_half_random(root / str(PATH)[1:])
    state, size = hashlib.sha256(), 0
    for chunk in dump_tree(root / str(PATH)[1:]):
        state.update(chunk)
        size += len(chunk)
    info = PathInfo(PATH, NarHash(state.hexdigest()), size, ())
    with docker_registry(tmp_path / "registry", password=False) as running:
        target = f"{running.host}/large"
        told = target, root, PATH, info.nar_hash.hex, size
        first, again = (_pushed(*told, expected) for expected in (0, 1))
        assert first[:2] == again[:2]
        assert (first[2], again[2]) == (first[1], 0)
        assert max(first[3], again[3]) < ALLOWED
        store, fact = (
            Stores().open(Reference.parse(target)),
            OutputFact(PATH, info.nar_hash, size, ()),
        )
        bundle = scene.store.open_blob(scene.bundle(fact).descriptor(BUNDLE_V03))
        word = put(store, b"".join(bundle), BUNDLE_V03)
        put_config(store)
        keep(
            store,
            KeptOutput(
                path=PATH,
                nar_hash=info.nar_hash,
                nar_size=size,
                nar=Stored(Digest(first[0]), first[1]),
                bundles=(Stored(word.digest, word.size),),
                commit="c0ffee" + "0" * 34,
                signer="alice",
                pushed=NOW,
            ),
        )
        for served, taken in _served(target, scene.root / "trust.toml", first[0], times=2):
            assert taken == (first[0], first[1])
            assert served < ALLOWED


def _pushed(*told: object) -> tuple[str, int, int, int]:
    """The blob's digest and size, the bytes that were sent, and what memory grew by."""
    command = [sys.executable, "-c", _PUSH, *map(str, told)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    digest, *numbers = json.loads(said)
    size, sent, grown = map(int, numbers)
    return str(digest), size, sent, grown


def _served(target: str, policy: Path, blob: str, times: int) -> list[tuple[int, tuple[str, int]]]:
    """What the server's memory grew by while the NAR was taken so often, and what came."""
    command = [sys.executable, "-c", _SERVE, target, str(policy)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        urllib.request.urlopen(f"{url}/{HASH}.narinfo").close()
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        taken = [_taken(f"{url}/nar/{HASH}-{blob}.nar.zst") for _ in range(times)]
        grown = int(process.communicate("\n", timeout=60)[0])
    return [(grown, each) for each in taken]


def _taken(url: str) -> tuple[str, int]:
    state, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url) as answer:
        while chunk := answer.read(1 << 20):
            state.update(chunk)
            size += len(chunk)
    return state.hexdigest(), size
