"""The same behind a real link: 1 Gbit/s and 200 Mbit/s, shaped by the kernel.

The servers (docker-registry, and a web server for Nix's binary cache) run in a network namespace of
this benchmark's own, behind a pair of virtual interfaces, both ends of which are shaped
(``tc tbf``).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.context import Context, Subject, absent, timed
from bench.first_build import layout_of
from bench.hydrate import NIX, gzip_image
from bench.push_peers import PEERS, Setting, run
from bench.pushes import push_ours
from bench.table import Section, Verdict
from nix_seed.formats.oci.reference import LayoutReference, Reference
from nix_seed.image.push import push
from nix_seed.image.read.spec import read_spec
from nix_seed.registry.image import open_image
from nix_seed.registry.open import Stores
from support.distribution import nix_env
from support.engines import Started, docker, need, need_root

__all__ = ["rows"]

_RATES = {"1 Gbit/s": "1gbit", "200 Mbit/s": "200mbit"}
_HERE, _THERE = "10.231.77.1", "10.231.77.2"
_PUSH, _PULL = "push", "pull to a store"
# The one-pass peers; the others begin with a whole image on disk, which no link makes faster.
_PUSHERS = ("nix2container", "tar and crane")


@dataclass(frozen=True, slots=True)
class _Link:
    """A namespace and the shaped way to it."""

    name: str
    device: str

    def inside(self, *command: str | Path) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def shape(self, rate: str) -> None:
        """Let no more than *rate* pass, either way."""
        tbf = ["root", "tbf", "rate", rate, "burst", "1mb", "latency", "50ms"]
        run("tc", "qdisc", "replace", "dev", self.device, *tbf)
        run(*self.inside("tc", "qdisc", "replace", "dev", "eth0", *tbf))


@contextmanager
def _link() -> Iterator[_Link]:
    need_root()
    need("ip", "iproute2")
    need("tc", "iproute2")
    link = _Link(f"seed-bench-{os.getpid()}", f"sb{os.getpid()}")
    made = subprocess.run(["ip", "netns", "add", link.name], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"needs network namespaces: {made.stderr.decode()[-200:]}")
    try:
        peer = ["peer", "name", "eth0", "netns", link.name]
        run("ip", "link", "add", link.device, "type", "veth", *peer)
        run("ip", "address", "add", f"{_HERE}/30", "dev", link.device)
        run("ip", "link", "set", link.device, "up")
        run(*link.inside("ip", "address", "add", f"{_THERE}/30", "dev", "eth0"))
        run(*link.inside("ip", "link", "set", "eth0", "up"))
        run(*link.inside("ip", "link", "set", "lo", "up"))
        yield link
    finally:
        subprocess.run(["ip", "netns", "delete", link.name], capture_output=True, check=False)


@contextmanager
def _served(link: _Link, command: Sequence[str | Path], port: int) -> Iterator[str]:
    """Run a server in the namespace; yield its host and port."""
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen(link.inside(*command), stdout=nothing, stderr=nothing)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((_THERE, port)) == 0:
                    break
            time.sleep(0.05)
        yield f"{_THERE}:{port}"
    finally:
        process.terminate()
        process.wait()


def _registry(root: Path, port: int) -> list[str | Path]:
    program = need("docker-registry")
    root.mkdir(parents=True)
    config = root / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\nhttp: {addr: '" + f"{_THERE}:{port}" + "', secret: x}\n"
        f"storage: {{filesystem: {{rootdirectory: '{root / 'data'}'}}}}\n"
    )
    return [program, "serve", config]


def rows(context: Context) -> Section:
    """Push and pull the small seed at every rate."""
    missing: list[str] = []
    figures: dict[tuple[str, str], dict[str, float]] = {}
    with absent("shaping", context.say, missing), _link() as link:
        for rate in list(_RATES)[: 1 if context.quick else None]:
            link.shape(_RATES[rate])
            figures[_PUSH, rate] = _pushes(context, link, missing)
            figures[_PULL, rate] = _pulls(context, link, missing)
            for name, seconds in (figures[_PUSH, rate] | figures[_PULL, rate]).items():
                context.say(f"  {rate}, {name}: {seconds:.2f} s")
    return Section(
        title="The same at 1 Gbit/s and 200 Mbit/s",
        intro=f"{context.small.about}. " + (__doc__ or "").split("\n\n", 1)[1].strip(),
        columns=("work", "contender", "link", "s", "× ours"),
        rows=tuple(_rows(figures)),
        verdicts=() if context.quick else tuple(_verdicts(figures)),
        notes=tuple(dict.fromkeys(missing)),
    )


def _rows(figures: dict[tuple[str, str], dict[str, float]]) -> Iterator[tuple[str, ...]]:
    for (work, rate), times in figures.items():
        own = next(iter(times.values()))
        for name, seconds in times.items():
            yield (work, name, rate, f"{seconds:.2f}", f"{seconds / own:.1f}")


def _verdicts(figures: dict[tuple[str, str], dict[str, float]]) -> Iterator[Verdict]:
    for (work, rate), times in figures.items():
        own, *others = times.items()
        if others:
            name, seconds = min(others, key=lambda item: item[1])
            yield Verdict(
                f"{work}, {rate}",
                f"the best of {len(others)}: {name}",
                f"{seconds / own[1]:.1f} × faster",
                "as fast as any",
                seconds >= own[1],
            )


def _pushes(context: Context, link: _Link, missing: list[str]) -> dict[str, float]:
    times: dict[str, float] = {}
    plan = context.small.before

    def race(name: str, push: Callable[[Setting], object]) -> None:
        work = context.directory("shaped")
        with _served(link, _registry(work / "registry", 5000), 5000) as host:
            setting = Setting(plan, f"{host}/bench/seed:bench", work)
            times[name] = timed(lambda: push(setting)).seconds
        shutil.rmtree(work)

    race("nix-seed build --push", lambda s: push_ours(s.plan, s.reference, s.work))
    for peer in PEERS:
        if peer.name.startswith(_PUSHERS):
            with absent(peer.name, context.say, missing):
                race(peer.name, peer.prepare(context.directory("peer")))
    return times


def _pulls(context: Context, link: _Link, missing: list[str]) -> dict[str, float]:
    work, subject = context.directory("shaped"), context.small
    image = layout_of(context, subject)
    times: dict[str, float] = {}
    with ExitStack() as stack:
        served = _registry(work / "registry", 5000)
        host = stack.enter_context(_served(link, served, 5000))
        ours, gzip = (Reference(host, "bench/seed", tag) for tag in ("zstd", "gzip"))
        push(Stores(plain_http=True), image, ours)
        spec = read_spec(open_image(image))
        push(Stores(plain_http=True), _gzip(context, image), gzip)
        actions: dict[str, Callable[[], object]] = {
            "nix-seed hydrate": lambda: _hydrate(ours, spec.system, context.directory("root")),
        }
        with absent("Nix substituting", context.say, missing):
            cache = _binary_cache(context, subject)
            command: list[str | Path] = [
                sys.executable,
                "-m",
                "http.server",
                "5001",
                "--bind",
                _THERE,
                "-d",
                cache,
            ]
            nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
            if nginx is not None:
                command = [nginx, "-c", _nginx(work, cache)]
            at = stack.enter_context(_served(link, command, 5001))
            actions["nix copy, zstd"] = lambda: _substitute(
                f"http://{at}", subject, context.directory("copied")
            )
        with absent("docker pull", context.say, missing):
            (work / "docker").mkdir()
            engine = stack.enter_context(docker(work / "docker", plain_http=(host,)))
            actions["docker pull, gzip"] = lambda: _docker_pull(engine, gzip)
        for name, action in actions.items():
            os.sync()
            times[name] = timed(action).seconds
    subprocess.run(["chmod", "-R", "u+w", str(context.work)], check=False, capture_output=True)
    return times


def _gzip(context: Context, image: LayoutReference) -> LayoutReference:
    directory = context.work / "shaped-gzip"
    if directory.exists():
        return LayoutReference(str(directory), tag="seed")
    spec = read_spec(open_image(image))
    return replace(gzip_image(spec, Path("/"), directory), tag="seed")


def _hydrate(reference: Reference, system: str, root: Path) -> None:
    command = [sys.executable, "-m", "nix_seed", "hydrate", str(reference), "--plain-http"]
    run(*command, "--json", "--root", root, "--system", system)


def _binary_cache(context: Context, subject: Subject) -> Path:
    cache = context.work / "binary-cache"
    if not cache.exists():
        paths = [str(info.path) for info in subject.infos]
        run("nix", *NIX, "copy", "--to", f"file://{cache}?compression=zstd", *paths)
    return cache


def _nginx(work: Path, cache: Path) -> Path:
    config = work / "nginx.conf"
    config.write_text(
        f"daemon off; pid {work}/nginx.pid; error_log /dev/null; user root;\nevents {{}}\n"
        f"http {{ access_log off; sendfile on; server {{ "
        f"listen {_THERE}:5001; root {cache}; }} }}\n"
    )
    return config


def _substitute(source: str, subject: Subject, root: Path) -> None:
    env = nix_env() | {"HOME": str(root), "XDG_CACHE_HOME": str(root / "cache")}
    paths = [str(info.path) for info in subject.infos]
    arguments = ["copy", "--no-check-sigs", "--from", source, "--to", str(root), *paths]
    run("nix", *NIX, *arguments, env=env)


def _docker_pull(engine: Started, reference: Reference) -> None:
    program = shutil.which(engine.program, path=engine.env["PATH"]) or engine.program
    run(program, "pull", "-q", str(reference), env=engine.env)
