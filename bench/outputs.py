"""Outputs on a fresh machine: none kept, ours from a registry, and Nix's own HTTP cache.

``python bench/outputs.py`` in the tests' environment prints one JSON object. A flake of twenty
packages, one of them changed, is built on a fresh store, over links of
1 Gbit/s and of 200 Mbit/s with 30 ms (``bench/link.py``). Then what pushing 300 outputs costs
against ``nix copy`` to a directory, what a miss costs beyond the registry's own answer, and how
fast a large NAR is served against nginx. What cannot be measured here is named.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "src")]

from _pytest.outcomes import Skipped  # noqa: E402

from bench.link import THERE, Link, link, registry_config, served  # noqa: E402
from bench.push_peers import run  # noqa: E402
from nix_seed.core.digests import Digest, encode_nix32  # noqa: E402
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType  # noqa: E402
from nix_seed.registry.layout import Layout  # noqa: E402
from nix_seed.registry.layout_store import LayoutStore  # noqa: E402
from nix_seed.registry.store import put_bytes  # noqa: E402
from support import seeds  # noqa: E402
from support.distribution import distribution, nix, nix_env  # noqa: E402
from support.faults import fault_proxy  # noqa: E402
from support.nars import Directory, NarFile  # noqa: E402
from support.output_world import (  # noqa: E402
    NUMBERS,
    SOURCE,
    Serving,
    Twenty,
    built_names,
    changed,
    twenty,
)
from support.outputs import OutputsWorld, store_path  # noqa: E402
from support.registries import docker_registry, free_port  # noqa: E402
from support.seeds import remove_tree  # noqa: E402

CELLS = {
    "1 Gbit/s": ("1gbit", 0.0),
    "200 Mbit/s, 30 ms": ("200mbit", 0.03),
}
TURNS = 7
MANY = 300
_LARGE = 128 << 20
# As many derivations as there are outputs, none of which takes another.
_MANY = """
      packages.${system} = builtins.listToAttrs (map (n: {
        name = "m${toString n}";
        value = pkgs.runCommand "m${toString n}" { src = ./src; } "cp $src/${toString n} $out";
      }) (builtins.genList (n: n) COUNT));
"""
# A loop in the shell, of about a second, in each of them.
_SLOW = """
      packages.${system} =
        let
          make = n: pkgs.runCommand "s${toString n}" { src = ./src + "/s${toString n}"; }
            "i=0; while [ $i -lt LOOPS ]; do i=$((i + 1)); done; cp $src $out";
          names = map (n: "s${toString n}") (builtins.genList (n: n) COUNT);
          all = builtins.listToAttrs
            (map (n: { name = "s${toString n}"; value = make n; }) (builtins.genList (n: n) COUNT));
        in all // {
          all = pkgs.runCommand "all" { parts = map (n: all.${n}) names; } "echo $parts > $out";
        };
"""
_SLOW_ONES = 10
_SLOW = _SLOW.replace("COUNT", str(_SLOW_ONES)).replace("LOOPS", "400000")


def timed(serving: Serving, flake: str, store: Path) -> dict[str, Any]:
    """Build *flake* in the fresh *store* with that cache; say how long it took."""
    begin = time.monotonic()
    done = serving.build(flake, store)
    seconds = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    remove_tree(store)
    return {"seconds": round(seconds, 2), "built": len(built_names(done.stderr))}


def nix_cache(paths: list[str], root: Path) -> tuple[Path, str, float]:
    """Copy *paths* into a signed cache on disk; return it, its key, and the seconds that took."""
    cache, key = root / "web/cache", root / "nix.key"
    key.write_text(nix("key", "generate-secret", "--key-name", "bench"))
    public = subprocess.run(
        ["nix", "key", "convert-secret-to-public"],
        input=key.read_text(),
        env=nix_env(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    begin = time.monotonic()
    where = f"file://{cache}?compression=zstd&secret-key={key}"
    nix("copy", "--no-recursive", "--to", where, *paths)
    return cache, public, time.monotonic() - begin


def nginx(root: Path, address: str, files: Path) -> list[str | Path]:
    """The command of an nginx that serves *files* at *address*."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        raise Skipped("needs nginx: apt-get install nginx-light")
    config = root / "nginx.conf"
    config.write_text(
        f"daemon off; pid {root}/nginx.pid; error_log /dev/null; user root;\n"
        "events {}\nhttp { access_log off; sendfile on; keepalive_requests 100000;\n"
        f"server {{ listen {address}; root {files}; }} }}\n"
    )
    return [program, "-c", config]


def over_links(world: Twenty, root: Path, flake: str) -> dict[str, Any]:
    """Build over every link, in turns: from ours, and from Nix's own cache behind nginx."""
    found: dict[str, Any] = {}
    paths = nix("path-info", *(f"{world.project}#p{n}" for n in NUMBERS)).split()
    files, public, _ = nix_cache(paths, root)
    with ExitStack() as stack:
        way: Link = stack.enter_context(link())
        registry = registry_config(root / "there", 5000)
        target = f"{stack.enter_context(served(way, registry, 5000))}/twenty"
        stack.enter_context(served(way, nginx(root, f"{THERE}:5080", files), 5080))
        pushed = world.push(target, "--plain-http")
        assert pushed.code == 0, pushed.err
        for name, (rate, trip) in CELLS.items():
            way.shape(rate, trip)
            rounds: dict[str, list[float]] = {"ours": [], "nix": []}
            near = Serving(f"http://{THERE}:5080", public, root)
            for number in range(TURNS):
                place = root / f"{rate}-{number}"
                with world.serving(target, root / "log", "--plain-http") as ours:
                    time.sleep(1)  # both servers stand ready, as nginx does
                    turn = [("nix", near), ("ours", ours)]
                    for who, cache in turn if number % 2 else reversed(turn):
                        done = timed(cache, flake, world.fresh_store(place / who))
                        assert done["built"] == 2, (who, done)
                        rounds[who].append(done["seconds"])
            best = {who: min(seconds) for who, seconds in rounds.items()}
            middle = {who: statistics.median(seconds) for who, seconds in rounds.items()}
            found[name] = {
                "fastest": best | {"ratio": round(best["ours"] / best["nix"], 2)},
                "median": middle | {"ratio": round(middle["ours"] / middle["nix"], 2)},
                "all": rounds,
            }
            print(f"  {name}: {found[name]}", file=sys.stderr)
    return found


def saved(world: Twenty, root: Path) -> dict[str, Any]:
    """Build ten packages that take some seconds each: all of them here, or taken but for one.

    What a job saves is what it does not build; twenty tiny packages tell of nothing but latency.
    """
    project = seeds.write_project(
        root / "slow",
        distribution(),
        _SLOW,
        {f"src/s{number}": f"{number}\n" for number in range(_SLOW_ONES)},
    )
    subprocess.run(["git", "-C", str(project), "remote", "add", "origin", SOURCE], check=True)
    nix("build", "--no-link", f"{project}#all")
    job = replace(world, project=project)
    flake = f"{changed(project, root / 'changed', 's3')}#all"
    here = timed(Serving("", "", root), flake, world.fresh_store(root / "a"))
    target = f"oci:{root / 'kept'}"
    pushed = job.push(target)
    assert pushed.code == 0, pushed.err
    with job.serving(target, root / "log") as serving:
        time.sleep(1)
        taken = timed(serving, flake, world.fresh_store(root / "b"))
    return {"nothing": here, "kept": taken, "ratio": round(here["seconds"] / taken["seconds"], 1)}


def requests(world: Twenty, root: Path, flake: str) -> dict[str, Any]:
    """Count what a push and a build ask a registry for, and its bytes."""
    with docker_registry(root / "registry", password=False) as running:
        with fault_proxy(running.host) as proxy:
            target = f"{proxy.host}/counted"
            pushed = json.loads(world.push(target).out)
            push = Counter(_kind(each.method, each.path) for each in proxy.seen)
            proxy.seen.clear()
            with world.serving(target, root / "log") as serving:
                timed(serving, flake, world.fresh_store(root / "d"))
            build = Counter(_kind(each.method, each.path) for each in proxy.seen)
        blobs = (root / "registry/data").rglob("data")
        stored = sum(path.stat().st_size for path in blobs)
    paths = len(pushed["pushed"])
    return {
        "paths": paths,
        "push": dict(sorted(push.items())),
        "pushPerPath": round(push.total() / paths, 1),
        "build": dict(sorted(build.items())),
        "narBytes": pushed["sent"],
        "storedBytes": stored,
    }


def _kind(method: str, path: str) -> str:
    return f"{method} {'blob' if '/blobs/' in path else 'manifest'}"


def pushing(world: Twenty, root: Path) -> dict[str, Any]:
    """Push many outputs to a directory, and have Nix copy the same ones to another.

    NARs are compared with NARs, as both compress them, and what is written besides (manifests,
    lists and the signed word; narinfos) is counted by itself. Of the tiny outputs hardly anything
    is left once it is compressed; the others have the size of a small program.
    """
    return {
        "tiny": _pushing(world, root / "tiny", [f"{n}\n" * 3000 for n in range(MANY)]),
        "small": _pushing(world, root / "small", [_words(n, 100_000) for n in range(MANY // 3)]),
    }


def _words(number: int, size: int) -> str:
    """Text that compresses about as well as a program does."""
    pick = random.Random(number)
    words = [pick.randbytes(pick.randrange(2, 8)).hex() for _ in range(2000)]
    return " ".join(pick.choices(words, k=size // 10))


def _pushing(world: Twenty, root: Path, contents: Sequence[str]) -> dict[str, Any]:
    root.mkdir()
    files = {f"src/{number}": text for number, text in enumerate(contents)}
    base = distribution()
    project = seeds.write_project(
        root / "many", base, _MANY.replace("COUNT", str(len(files))), files
    )
    subprocess.run(["git", "-C", str(project), "remote", "add", "origin", SOURCE], check=True)
    names = [f"{project}#m{number}" for number in range(len(files))]
    nix("build", "--no-link", *names)
    paths = nix("path-info", *names).split()
    copy = nix_cache(paths, root)[2]
    job = replace(world, project=project)
    begin = time.monotonic()
    done = job.push(f"oci:{root / 'pushed'}")
    seconds = time.monotonic() - begin
    assert done.code == 0, done.err
    said = json.loads(done.out)
    with docker_registry(root / "registry", password=False) as running:
        begin = time.monotonic()
        done = job.push(f"{running.host}/many")
        to_registry = time.monotonic() - begin
        assert done.code == 0, done.err
        begin = time.monotonic()
        _copy_blobs(root / "pushed", f"{running.host}/copied")
        by_skopeo = time.monotonic() - begin
    to_web = _copied_to_web(paths, root)
    packed = sum(path.stat().st_size for path in (root / "web/cache/nar").iterdir())
    narinfos = sum(path.stat().st_size for path in (root / "web/cache").glob("*.narinfo"))
    stored = sum(path.stat().st_size for path in (root / "pushed/blobs/sha256").iterdir())
    return {
        "outputs": len(said["pushed"]),
        "seconds": round(seconds, 2),
        "nixCopySeconds": round(copy, 2),
        "registrySeconds": round(to_registry, 2),
        "registrySkopeoSeconds": round(by_skopeo, 2),
        "nixCopyToHttpSeconds": round(to_web, 2),
        "narBytes": said["sent"],
        "nixNarBytes": packed,
        "ratio": round(said["sent"] / packed, 3),
        "documentBytes": stored - said["sent"],
        "nixDocumentBytes": narinfos,
    }


def _copied_to_web(paths: list[str], root: Path) -> float:
    """Have Nix copy *paths* to an nginx that takes what is put; return the seconds that took."""
    files, port = root / "put", free_port()
    files.mkdir()
    command = nginx(root, f"127.0.0.1:{port}", files)
    config = root / "nginx.conf"
    more = f"root {files}; dav_methods PUT; create_full_put_path on; client_max_body_size 0;"
    config.write_text(config.read_text().replace(f"root {files};", more))
    process = subprocess.Popen(command)
    try:
        time.sleep(0.5)
        where = f"http://127.0.0.1:{port}?compression=zstd&secret-key={root / 'nix.key'}"
        begin = time.monotonic()
        nix("copy", "--no-recursive", "--to", where, *paths)
        seconds = time.monotonic() - begin
    finally:
        process.terminate()
        process.wait()
    assert len(list(files.glob("*.narinfo"))) == len(paths)
    return seconds


def _copy_blobs(layout: Path, target: str) -> None:
    """Have skopeo copy an image to a registry whose layers are the NARs of *layout*."""
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs/sha256"
    documents = (each for each in index["manifests"] if each["mediaType"] == MediaType.MANIFEST)
    read = (json.loads((blobs / each["digest"][7:]).read_bytes()) for each in documents)
    nars = {each["layers"][0]["digest"]: each["layers"][0]["size"] for each in read}
    store = LayoutStore(Layout.open(layout))
    about = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": list(nars)},
    }
    config = put_bytes(store, MediaType.CONFIG, json.dumps(about).encode())
    layers = (Descriptor(MediaType.LAYER_ZSTD, Digest.parse(each), nars[each]) for each in nars)
    store.put_manifest(Manifest(config, tuple(layers)).dump(), MediaType.MANIFEST, "nars")
    run(
        "skopeo",
        "copy",
        "-q",
        "--dest-tls-verify=false",
        f"oci:{layout}:nars",
        f"docker://{target}:nars",
    )


def misses(world: Twenty, root: Path) -> dict[str, Any]:
    """Ask for what nobody keeps: our server, and by itself the registry that it asks."""
    ours, theirs = [], []
    with ExitStack() as stack:
        running = stack.enter_context(docker_registry(root / "empty", password=False))
        where = f"{running.host}/twenty"
        serving = stack.enter_context(world.serving(where, root / "log"))
        cache = stack.enter_context(_connected(urlsplit(serving.url).netloc))
        registry = stack.enter_context(_connected(running.host))
        for number in range(120):
            part = encode_nix32(number.to_bytes(20, "little"))
            theirs.append(_asked(registry, f"/v2/twenty/manifests/out-{part}"))
            ours.append(_asked(cache, f"/{part}.narinfo"))
    registry_ms = statistics.median(theirs[20:]) * 1000
    cache_ms = statistics.median(ours[20:]) * 1000
    return {
        "registryMs": round(registry_ms, 2),
        "oursMs": round(cache_ms, 2),
        "beyondMs": round(cache_ms - registry_ms, 2),
    }


@contextmanager
def _connected(host: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def _asked(connection: http.client.HTTPConnection, path: str, status: int = 404) -> float:
    begin = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    while answer.read(1 << 20):
        pass
    assert answer.status == status, (answer.status, path)
    return time.perf_counter() - begin


def serving_speed(world: Twenty, root: Path) -> dict[str, Any]:
    """Serve one large NAR: checked on its way by us, and just sent by nginx."""
    made = OutputsWorld(root / "large")
    made.head["outputs"] = '"own"'
    random_bytes = random.Random(1).randbytes(_LARGE)
    made.build("alice", {"site": Directory({b"file": NarFile(random_bytes)})})
    files = made.directory / "blobs/sha256"
    [blob] = [path for path in files.iterdir() if path.stat().st_size > _LARGE // 2]
    port = free_port()
    job = replace(world, policy=made.write_policy())
    process = subprocess.Popen(nginx(root, f"127.0.0.1:{port}", files))
    try:
        with job.serving(f"oci:{made.directory}", root / "log") as serving:
            part = store_path("site").hash_part
            with _connected(urlsplit(serving.url).netloc) as cache:
                cache.request("GET", f"/{part}.narinfo")
                text = cache.getresponse().read().decode()
                url = "/" + next(x[5:] for x in text.splitlines() if x.startswith("URL: "))
                ours = [_asked(cache, url, 200) for _ in range(3)]
        with _connected(f"127.0.0.1:{port}") as web:
            theirs = min(_asked(web, f"/{blob.name}", 200) for _ in range(3))
    finally:
        process.terminate()
        process.wait()
    size = blob.stat().st_size / 1e6
    return {
        "firstMBs": round(size / ours[0]),
        "againMBs": round(size / min(ours[1:])),
        "nginxMBs": round(size / theirs),
    }


def main() -> None:
    """Measure, and print."""
    world = twenty()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        flake = f"{changed(world.project, root / 'project', 'p3')}#p20"
        parts: dict[str, Callable[[Path], dict[str, Any]]] = {
            "none": lambda place: timed(
                Serving("", "", place), flake, world.fresh_store(place / "a")
            ),
            "links": lambda place: over_links(world, place, flake),
            "saved": lambda place: saved(world, place),
            "requests": lambda place: requests(world, place, flake),
            "pushing": lambda place: pushing(world, place),
            "misses": lambda place: misses(world, place),
            "serving": lambda place: serving_speed(world, place),
        }
        unknown = [name for name in sys.argv[1:] if name not in parts]
        if unknown:
            sys.exit(f"no part {', '.join(unknown)}; there are: {', '.join(parts)}")
        for name in sys.argv[1:] or parts:
            place = root / name
            place.mkdir()
            try:
                result[name] = parts[name](place)
            except Skipped as reason:
                result[name] = f"not measured: {reason}"
            print(f"{name}: {result[name]}", file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
