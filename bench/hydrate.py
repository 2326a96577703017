"""Registry to a store that is ready for the first build, nothing cached, side by side with others.

Every contender gets the same store paths from a server on loopback into an empty place on one disk:

* ``nix-seed hydrate`` from docker-registry: every layer digest and NAR hash checked, registered;
* ``nix copy`` from a local HTTP binary cache (``file://``, xz or zstd), as Nix substitutes;
* a cache restore: ``curl`` of a ``tar.zst``, ``tar -x``, ``nix-store --load-db`` (nothing checked);
* ``docker pull`` and ``podman pull`` of the same layers in gzip, as most images are.

Contenders take turns, round after round, and the fastest round of each counts; the page cache is
warm for the servers' side, and the disk is synced between turns. Each turn has a directory of its
own and nothing is removed in between: ext4 searches long for inodes where many were just freed.
Start-up is included. Processor time (user and system, of all that the contender started; no
daemon's) is given beside it, since that is steady where other work shares the machine. By hand::

    .venv/bin/python bench/hydrate.py oci:DIR[:TAG] [--rounds N] [--work DIR]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from nix_seed.core.digests import Digest
from nix_seed.formats.nix.database import format_registration
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.push import push
from nix_seed.image.read.spec import read_spec
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.layer import FinishedLayer, write_entries_layer, write_layer
from nix_seed.image.rules.spec import Spec, build_image, container_entries
from nix_seed.registry.layout import Layout, open_image
from nix_seed.registry.layout_store import LayoutStore
from nix_seed.registry.open import Stores
from nix_seed.use.hydrate import hydrate
from support.engines import Started, docker, podman
from support.registries import docker_registry, free_port

Action = Callable[[Path], object]
"""Fills a directory that is not there yet."""
OURS = "nix-seed hydrate"
NIX = ["--extra-experimental-features", "nix-command", "--option", "build-users-group", ""]


@dataclass(frozen=True, slots=True)
class Row:
    """A contender: its fastest round and its least processor time, in seconds; ratio to ours."""

    name: str
    seconds: float
    processor: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Result:
    """The size of the race (paths, bytes of NAR), and its rows, ours first."""

    paths: int
    nar_size: int
    rows: tuple[Row, ...]


def bench(image: LayoutReference, work: Path, rounds: int = 3) -> Result:
    """Race all contenders that are at hand for the paths of the seed *image*."""
    spec = read_spec(open_image(image))
    with ExitStack() as stack:
        contenders = _contenders(image, spec, work, stack)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for number in range(rounds):
            for place, (name, action) in enumerate(contenders.items()):
                os.sync()
                times[name].append(timed_action(action, work / f"round-{number}-{place}"))
    best = {name: min(wall for wall, _ in measured) for name, measured in times.items()}
    rows = tuple(
        Row(name, wall, min(used for _, used in times[name]), wall / best[OURS])
        for name, wall in best.items()
    )
    return Result(len(spec.paths), sum(info.nar_size for info in spec.paths.values()), rows)


def timed_action(action: Action, root: Path) -> tuple[float, float]:
    """Return the seconds that *action* took by the clock, and of processors."""
    start, used = time.perf_counter(), _processor()
    action(root)
    return time.perf_counter() - start, _processor() - used


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _contenders(
    image: LayoutReference, spec: Spec, work: Path, stack: ExitStack
) -> dict[str, Action]:
    store = work / "store"
    hydrate(Stores(), image, store, system=spec.system)
    registry = stack.enter_context(docker_registry(work / "registry", password=False)).host
    ours = Reference(registry, "bench/seed", "zstd")
    push(Stores(), image, ours)
    gzip = Reference(registry, "bench/seed", "gzip")
    push(Stores(), gzip_image(spec, store, work / "gzip"), gzip)
    served = stack.enter_context(serve(work / "served"))
    contenders: dict[str, Action] = {
        OURS: lambda root: _ours(ours, spec.system, root),
        "curl, tar --zstd -x, nix-store --load-db": _restore(spec, store, work, served),
    }
    for compression in ("zstd", "xz"):
        contenders[f"nix copy, {compression}"] = substitute(spec, store, work, served, compression)
    for name, start in (("docker", docker), ("podman", podman)):
        (work / name).mkdir()
        with _optional(name):
            engine = stack.enter_context(start(work / name))
            contenders[f"{name} pull, gzip"] = _pull(engine, name, gzip)
    return contenders


def gzip_image(spec: Spec, store: Path, directory: Path) -> LayoutReference:
    """The same image in gzip, as for old engines."""
    spec = replace(spec, compressor=Compressor.at_hand("gzip"))
    target = LayoutStore(Layout.create(directory))
    layers = []
    for number in range(len(spec.layers) + 1):
        path = directory / "blob"
        with path.open("wb") as sink:
            layers.append(_write(spec, number, store, sink))
        _take(target, layers[-1].descriptor, path.read_bytes())
        path.unlink()
    documents = build_image(spec, [(layer.descriptor, layer.diff_id) for layer in layers])
    config = documents.config
    _take(target, Descriptor(MediaType.CONFIG, Digest.of(config), len(config)), config)
    target.put_manifest(documents.manifest, MediaType.MANIFEST, "seed")
    return LayoutReference(str(directory))


def _write(spec: Spec, number: int, store: Path, sink: object) -> FinishedLayer:
    if number == len(spec.layers):
        return write_entries_layer(container_entries(spec, ()), spec.compressor, sink)  # type: ignore[arg-type]
    infos = [spec.paths[path] for path in spec.layers[number].paths]
    return write_layer(infos, spec.compressor, StoreFiles(store), sink)  # type: ignore[arg-type]


def _take(store: LayoutStore, blob: Descriptor, data: bytes) -> None:
    store.take_blob(blob, lambda held: iter([data[held.size :]]))


def _ours(reference: Reference, system: str, root: Path) -> None:
    command = [sys.executable, "-m", "nix_seed", "hydrate", str(reference), "--json"]
    _run([*command, "--root", str(root), "--system", system])


def _restore(spec: Spec, store: Path, work: Path, served: str) -> Action:
    archive = work / "served/store.tar.zst"
    _run(["tar", "-C", str(store), "-I", "zstd -3 -T0", "-cf", str(archive), "nix/store"])
    records = work / "records"
    records.write_text(format_registration(spec.paths.values()))

    def restore(root: Path) -> None:
        local = root / "store.tar.zst"
        root.mkdir()
        _run(["curl", "-sSf", "-o", str(local), f"{served}/store.tar.zst"])
        _run(["tar", "-C", str(root), "--zstd", "-xf", str(local)])
        with records.open("rb") as stdin:
            _run(["nix-store", "--store", str(root), *NIX[2:], "--load-db"], stdin=stdin.fileno())

    return restore


def substitute(spec: Spec, store: Path, work: Path, served: str, compression: str) -> Action:
    cache = work / "served" / compression
    paths = [str(path) for path in sorted(spec.paths)]
    to = f"file://{cache}?compression={compression}"
    _run(["nix", *NIX, "copy", "--from", str(store), "--to", to, *paths])

    def substitute(root: Path) -> None:
        source = f"{served}/{compression}"
        # What Nix knows of a cache is kept below HOME: each round begins without it.
        env = os.environ | {"HOME": str(root), "XDG_CACHE_HOME": str(root / "cache")}
        arguments = ["copy", "--no-check-sigs", "--from", source, "--to", str(root), *paths]
        _run(["nix", *NIX, *arguments], env=env)

    return substitute


def _pull(engine: Started, name: str, reference: Reference) -> Action:
    env = os.environ | engine.env
    arguments = engine.env.get("NIX_SEED_PODMAN_ARGS", "").split()
    program = [shutil.which(engine.program, path=env["PATH"]) or engine.program, *arguments]
    insecure = ["--tls-verify=false"] if name == "podman" else []

    def pull(_: Path) -> None:
        subprocess.run(
            [*program, "rmi", "-f", str(reference)], env=env, capture_output=True, check=False
        )
        _run([*program, "pull", "-q", *insecure, str(reference)], env=env)

    return pull


@contextmanager
def _optional(name: str) -> Iterator[None]:
    """Go on without an engine that cannot be started here, and say so."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "Skipped":  # pytest's, which is no Exception
            raise
        print(f"without {name}: {error}", file=sys.stderr)


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """Serve *directory*: nginx where it is installed, else Python's threading server."""
    directory.mkdir(parents=True)
    port = free_port()
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    if nginx is not None:
        config = directory.parent / "nginx.conf"
        config.write_text(
            f"daemon off; pid {directory.parent}/nginx.pid; error_log /dev/null; user root;\n"
            "events {}\nhttp { access_log off; sendfile on; keepalive_requests 100000;\n"
            f"server {{ listen 127.0.0.1:{port}; root {directory}; }} }}\n"
        )
        command = [nginx, "-c", str(config)]
    server = subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _run(
    command: Sequence[str], *, env: dict[str, str] | None = None, stdin: int = subprocess.DEVNULL
) -> None:
    done = subprocess.run(command, env=env, stdin=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:6])} failed: {done.stderr.decode()[-2000:]}")


def _remove(root: Path) -> None:
    subprocess.run(["rm", "-rf", str(root)], check=True)


def report(result: Result) -> str:
    """Return the result as a table in Markdown."""
    lines = [
        f"{result.paths} store paths, {result.nar_size / 1e6:.0f} MB",
        "",
        f"| contender | seconds | × {OURS} | processor seconds |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in result.rows:
        figures = f"{row.seconds:.2f} | {row.ratio:.2f} | {row.processor:.2f}"
        lines.append(f"| {row.name} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", help="a seed: oci:DIR[:TAG]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where to work; on the disk that matters")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-hydrate-", dir=arguments.work))
    try:
        print(report(bench(LayoutReference.parse(arguments.image), work, arguments.rounds)))
    finally:
        _remove(work)


if __name__ == "__main__":
    main()
