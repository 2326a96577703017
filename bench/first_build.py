"""Job start to the result of the first build, over links as runners have them.

The project is the example of two packages, one commit after that for which the seed was pushed and
its prefetch list recorded. Every contender begins on a machine of its own: a new disk, an empty
``/nix``, cache and home. The servers are at the other end of a link, with a round trip of so many
milliseconds.

* ours runs the steps of ``use/action.yml``, its set-up from the bundle included: there is neither
  Nix nor anything of ours. Then it builds. *Without a list* nothing was recorded; *unpacked*
  has ``eager: true``.
* ``nix copy`` from a web server with a binary cache of zstd, then the build. Nix is there already.
* ``nix build`` alone substitutes from the same cache what this one build needs.
* ``tar.zst``: ``curl``, ``tar -x``, ``nix-store --load-db``, then the build. Nothing is checked.
* ``docker pull`` of the same layers in gzip, and no build after it.

Ours fetches over TLS, peers in the clear, and what sets them up is not counted. One web server
gives all of them their data, as storage does behind the registries that people use. Of who takes
less than ten seconds the fastest of three turns counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.context import Context, absent, build_layout, plan_of
from bench.hydrate import NIX, gzip_image
from bench.link import THERE, Link, link, new_disk, registry_config, served
from bench.push_peers import run
from bench.table import Section, Verdict
from nix_seed.formats.nix.database import format_registration
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.plan import Plan
from nix_seed.image.push import push
from nix_seed.registry.open import Stores
from support.distribution import NIX_SETTINGS, commit, distribution, make_project, nix_env
from support.engines import docker, need
from support.registries import certificate, docker_registry
from support.runner import REPOSITORY, git, inhabitants, programs
from support.seeds import edit
from support.steps import ROOT, assignments, runner_env

__all__ = ["rows"]

# Beside the demo's own: so that a seed of four times its size can be made of the same flake.
_MORE = ("libreoffice-core", "golang-1.19-go", "llvm-14-dev", "libstd-rust-dev")
_LARGE = """
          large = pkgs.stdenv.mkDerivation {
            pname = "large"; version = "1.0"; src = ./.; doCheck = false;
            buildInputs = map (name: pkgs.debianPackages.${name}) [ NAMES ];
          };
"""
_OURS, _PLAIN, _EAGER = "ours", "ours, without a list", "ours, unpacked"
_COPY, _BUILD = "nix copy, zstd", "nix build, substituting zstd"
_TAR, _DOCKER = "tar.zst", "docker pull, gzip, no build"
_GIGABIT, _FIFTH = ("1 Gbit/s", "1gbit"), ("200 Mbit/s", "200mbit")
_CELLS = [(_GIGABIT, trip) for trip in (0, 10, 30, 60)] + [(_FIFTH, trip) for trip in (0, 30, 60)]
# What a seed of four times the size is measured on, and what takes part in that.
_LARGE_CELLS = [(_GIGABIT, 0), (_GIGABIT, 30), (_FIFTH, 30)]
_WANTED = {("1 Gbit/s", 0): 2.5, ("1 Gbit/s", 30): 4.0, ("200 Mbit/s", 30): 5.5}
_GROWTH, _TIMES_FASTER = 1.10, 3.0
_LONG = 10.0  # seconds
_PORTS = {"tls": 5000, "plain": 5001, "web": 5002}
_SUBREAPER = 36

Cell = tuple[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class _Measured:
    """Seconds by the clock and of processors; bytes fetched when the build ended; most memory.

    *parts* are the seconds of each step. Processors include what the steps left behind.
    """

    seconds: float
    processor: float = 0.0
    fetched: int = 0
    resident: int = 0
    parts: tuple[float, ...] = ()


@dataclass(slots=True)
class _Subject:
    """A project, and its seed in the registry as *image*; *results* by cell and contender."""

    project: Path
    plan: Plan
    image: str
    size: int
    results: dict[tuple[Cell, str], _Measured] = field(default_factory=dict)


def rows(context: Context) -> Section:
    """Race over every link; in a quick run ours alone over one."""
    missing: list[str] = []
    work = context.directory("first-build")
    subjects = [_make(context, work / "1")]
    if not context.quick:
        subjects.append(_make(context, work / "4", large=True))
    with absent("the race", context.say, missing), link() as way, ExitStack() as stack:
        race = _Race(context, work, way, stack, missing)
        for number, subject in enumerate(subjects):
            cells = _CELLS[:1] if context.quick else _LARGE_CELLS if number else _CELLS
            race.run(subject, cells)
    return Section(
        title="Job start to the first build",
        intro=(__doc__ or "").split("\n\n", 1)[1].strip(),
        columns=("link", "contender", *_columns(subjects)),
        rows=tuple(_rows(subjects)),
        verdicts=() if context.quick else tuple(_verdicts(subjects)),
        notes=(*_notes(subjects), *dict.fromkeys(missing)),
    )


def _make(context: Context, work: Path, *, large: bool = False) -> _Subject:
    """Make a project and its seed, pushed with a list; then commit a change of its source."""
    context.say(f"  making {'a seed of four times the size' if large else 'the demo'}")
    work.mkdir(parents=True)
    base = distribution() if context.quick else distribution(*_MORE)
    project = make_project("two-packages", work / "project", base)
    if large:
        flake = project / "flake.nix"
        names = " ".join(f'"{name}"' for name in _MORE)
        text = flake.read_text().replace("          default = own.greet;\n", "@", 1)
        more = _LARGE.replace("NAMES", names)
        flake.write_text(text.replace("@", more + "          default = own.greet;\n"))
        commit(project, "Add a package that needs much")
    plan = plan_of(project)
    layout = build_layout(plan, work / "image", work)
    image = f"{REPOSITORY.lower()}-seed"
    with docker_registry(work / "registry", password=False) as running:
        listed = Reference(running.host, image, f"{git(project, 'rev-parse', 'HEAD')}-x86_64-linux")
        by_key = f"{plan.input_key}-x86_64-linux"
        for each in (listed, listed.at(by_key)):
            push(Stores(), layout, each)
            if not large:
                push(Stores(), layout, replace(each, repository=f"{image}-plain"))
        if not large:
            push(Stores(), gzip_image(plan.spec, Path("/"), work / "gzip"), listed.at("gzip"))
        own = [sys.executable, "-m", "nix_seed", "run", "--image", str(listed), "--record"]
        env = nix_env() | {"NIX_SEED_CACHE": str(work / "recording"), "HOME": str(work)}
        run(*own, "--flake", project, "--out", work / "out", "--", "nix", "build", env=env)
    (project / "result").unlink(missing_ok=True)
    edit(project, "greet/main.c", "usage: greet", "usage, changed: greet")
    size = sum(info.nar_size for info in plan.spec.paths.values())
    return _Subject(project, plan, image, size)


class _Race:
    """The servers beyond the link, and the contenders, each on a machine of its own."""

    def __init__(
        self, context: Context, work: Path, way: Link, stack: ExitStack, missing: list[str]
    ) -> None:
        self._context = context
        self._work = work
        self._link = way
        self._stack = stack
        self._missing = missing
        self._bundle = work / "web/bundle"
        run(sys.executable, ROOT / "tools/make-bundle", self._bundle)
        self._tls = certificate(work / "tls", THERE)
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)  # what is left behind is ours to count

    def run(self, subject: _Subject, cells: list[Cell]) -> None:
        """Have every contender take its turn in every cell."""
        with ExitStack() as stack:
            nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
            root = subject.project.parent / "registry"
            lines = f", tls: {{certificate: '{self._tls.certificate}', key: '{self._tls.key}'}}"
            for kind, more in (("plain", ""), ("tls", lines)):
                if kind == "plain" or nginx is None:
                    command = registry_config(root, _PORTS[kind], more)
                    stack.enter_context(served(self._link, command, _PORTS[kind]))
            contenders = self._contenders(subject, stack)
            stack.enter_context(served(self._link, self._web(nginx, root), _PORTS["web"]))
            for cell in cells:
                (name, rate), trip = cell
                self._link.shape(rate, trip / 1000)
                for contender, action in contenders.items():
                    if not _takes_part(contender, cell, cells):
                        continue
                    found = self._best(action, subject.project)
                    subject.results[cell, contender] = found
                    parts = ", ".join(f"{part:.2f}" for part in found.parts)
                    line = f"  {subject.size / 1e6:,.0f} MB, {name}, {trip} ms, {contender}: "
                    self._context.say(f"{line}{found.seconds:.2f} s ({parts})")

    def _contenders(
        self, subject: _Subject, stack: ExitStack
    ) -> dict[str, Callable[[_Machine], list[float]]]:
        ours = self._ours
        found: dict[str, Callable[[_Machine], list[float]]] = {
            _OURS: lambda machine: ours(machine, subject, subject.image),
            _PLAIN: lambda machine: ours(machine, subject, f"{subject.image}-plain"),
            _EAGER: lambda machine: ours(machine, subject, subject.image, eager=True),
        }
        if self._context.quick:
            return found
        paths = [str(path) for path in sorted(subject.plan.spec.paths)]
        web, at = self._work / "web", f"http://{THERE}:{_PORTS['web']}"
        for old in (web / "zstd", web / "store.tar.zst"):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        run("nix", *NIX, "copy", "--to", f"file://{web}/zstd?compression=zstd", *paths)
        names = [path.lstrip("/") for path in paths]
        # 1: a file's times changed meanwhile, as they do where another Nix links equal files.
        pack = 'tar -C / -I "zstd -3 -T0" -cf "$@" || test $? = 1'
        run("sh", "-c", pack, "sh", web / "store.tar.zst", *names)
        records = self._work / "records"
        records.write_text(format_registration(subject.plan.spec.paths.values()))
        found[_COPY] = lambda machine: machine.steps(
            ["nix", *NIX, "copy", "--no-check-sigs", "--from", f"{at}/zstd", *paths],
        )
        found[_BUILD] = lambda machine: machine.steps(
            extra=f"substituters = {at}/zstd\nrequire-sigs = false\nsandbox = true\n"
        )
        script = f"curl -sSf {at}/store.tar.zst | tar -C / --zstd -xf - && nix-store --load-db <$1"
        found[_TAR] = lambda machine: machine.steps(["sh", "-c", script, "sh", records])
        if not (subject.project.parent / "gzip").exists():
            return found
        with absent("docker pull", self._context.say, self._missing):
            place = Path(tempfile.mkdtemp(prefix="docker-", dir=self._work))
            plain = f"{THERE}:{_PORTS['plain']}"
            engine = stack.enter_context(docker(place, plain_http=(plain,)))
            reference = f"{plain}/{subject.image}:gzip"
            program = shutil.which(engine.program, path=engine.env["PATH"]) or engine.program

            def pull(_: _Machine) -> list[float]:
                start = time.perf_counter()
                run(program, "pull", "-q", reference, env=os.environ | engine.env)
                seconds = time.perf_counter() - start
                run(program, "rmi", "-f", reference, env=os.environ | engine.env)
                return [seconds]

            found[_DOCKER] = pull
        return found

    def _web(self, nginx: str | None, registry: Path) -> list[str | Path]:
        """Return the command of the web server; with nginx, it is the registry over TLS as well.

        It gives the blobs itself. Left to the registry, they take half as much of these few cores
        again as fetching them does.
        """
        config, web = self._work / "nginx.conf", self._work / "web"
        if nginx is None:
            at = ("--bind", THERE, "-d", web)
            return [sys.executable, "-m", "http.server", str(_PORTS["web"]), *at]
        config.write_text(
            f"daemon off; pid {self._work}/nginx.pid; error_log /dev/null; user root;\n"
            "events {}\nhttp { access_log off; sendfile on; keepalive_requests 100000;\n"
            f"server {{ listen {THERE}:{_PORTS['web']}; root {web}; }}\n"
            f"server {{ listen {THERE}:{_PORTS['tls']} ssl; ssl_certificate"
            f" {self._tls.certificate}; ssl_certificate_key {self._tls.key};\n"
            "location ~ ^/v2/.+/blobs/sha256:([0-9a-f][0-9a-f])([0-9a-f]+)$ {\n"
            f"alias {registry}/data/docker/registry/v2/blobs/sha256/$1/$1$2/data; }}\n"
            f"location / {{ proxy_pass http://{THERE}:{_PORTS['plain']};"
            " proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https; } } }\n"
        )
        return [nginx, "-c", config]

    def _ours(
        self, machine: _Machine, subject: _Subject, image: str, *, eager: bool = False
    ) -> list[float]:
        env = {
            "SEED_REGISTRY": f"{THERE}:{_PORTS['tls']}",
            "SEED_IMAGE": image,
            "SEED_CA_FILE": str(self._tls.ca),
            "SEED_EAGER": str(eager).lower(),
            "GITHUB_SHA": git(subject.project, "rev-parse", "HEAD"),
        }
        return machine.action(self._checkout, env)

    def _checkout(self, place: Path) -> Path:
        """Copy what a job gets of ours: a commit that pins the bundle."""
        for part in ("bin", "src", "use", "tools"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, place / part, ignore=ignored)
        at = f"http://{THERE}:{_PORTS['web']}/bundle"
        run(sys.executable, place / "tools/make-bundle", "--pin", at, self._bundle)
        return place

    def _best(self, action: Callable[[_Machine], list[float]], project: Path) -> _Measured:
        """Return the fastest of three turns, or the only one of who takes long."""
        found = self._turn(action, project)
        if self._context.quick or found.seconds > _LONG:
            return found
        more = [self._turn(action, project) for _ in range(2)]
        return min(found, *more, key=lambda turn: turn.seconds)

    def _turn(self, action: Callable[[_Machine], list[float]], project: Path) -> _Measured:
        received = Path(f"/sys/class/net/{self._link.device}/statistics/rx_bytes")
        with new_disk(self._work) as place:
            used = _processor()
            with _machine(place, project) as machine:
                before = int(received.read_text())
                parts = action(machine)
                fetched = int(received.read_text()) - before
                resident = machine.resident()
            used = _processor() - used
        return _Measured(sum(parts), used, fetched, resident, tuple(parts))


@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine with an empty ``/nix`` and home in *place*; its mounts are those of *holder*."""

    place: Path
    holder: int

    def action(self, checkout: Callable[[Path], Path], more: Mapping[str, str]) -> list[float]:
        """Run the action ``use`` as a machine without Nix does, then build; seconds of each."""
        source, project = checkout(self.place / "action"), self._project()
        names = ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
        files = {name: self.place / name for name in names}
        for path in files.values():
            path.touch()
        env = {
            **runner_env(self.place / "home", {}),
            **self._settings(),
            "PATH": str(programs(self.place)),
            "NIX_SEED_CACHE": str(self.place / "cache"),
            "NIX_SEED_TOOLS": str(self.place / "tools"),
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_REF": "refs/heads/main",
            **{name: str(path) for name, path in files.items()},
            **more,
        }
        times = []
        for step in (("setup", "--only"), ("use",)):
            times.append(self._timed([source / "bin/nix-seed", "ci", *step], project, env))
            env["NIX_SEED_PYTHON"] = assignments(files["GITHUB_OUTPUT"]).get("python", "")
        env |= assignments(files["GITHUB_ENV"])
        added = files["GITHUB_PATH"].read_text().split()
        env["PATH"] = os.pathsep.join([*reversed(added), env["PATH"]])
        return [*times, self._timed(["nix", "build"], project, env)]

    def steps(self, command: list[str | Path] | None = None, extra: str = "") -> list[float]:
        """Run *command* with this machine's Nix, then build; seconds of each."""
        project = self._project()
        settings = self._settings(extra)
        env = {**runner_env(self.place / "home", {}), **settings}
        times = [] if command is None else [self._timed(command, project, env)]
        return [*times, self._timed(["nix", "build"], project, env)]

    def resident(self) -> int:
        """Return the most bytes that any process that is left has had in memory."""
        most = 0
        for process in inhabitants(self.holder):
            with contextlib.suppress(OSError, IndexError, ValueError):
                text = Path(f"/proc/{process}/status").read_text()
                most = max(most, int(text.split("VmHWM:")[1].split()[0]) * 1024)
        return most

    def _settings(self, extra: str = "") -> dict[str, str]:
        chosen = {key: value for key, value in NIX_SETTINGS.items() if key not in extra}
        lines = "".join(f"{key} = {value}\n" for key, value in chosen.items())
        return {"NIX_CONFIG": lines + extra, "NIX_USER_CONF_FILES": "/dev/null"}

    def _project(self) -> Path:
        return self.place / "project"

    def _timed(self, command: list[str | Path], project: Path, env: Mapping[str, str]) -> float:
        start = time.perf_counter()
        space = [
            need("nsenter", "util-linux"),
            f"--mount=/proc/{self.holder}/ns/mnt",
            f"--wd={project}",
            "--",
        ]
        done = subprocess.run(
            [*space, *map(str, command)], env=dict(env), capture_output=True, check=False
        )
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace")[-3000:]
            raise SystemExit(f"{command[:4]} failed: {said}")
        return seconds


@contextlib.contextmanager
def _machine(place: Path, project: Path) -> Iterator[_Machine]:
    """Lend a machine; whatever still runs on it is ended, and counted."""
    for name in ("nix", "home"):
        (place / name).mkdir()
    run("git", "clone", "-q", project, place / "project")
    script = f'mount --bind "{place}/nix" /nix && echo && exec sleep 3600'
    spaces = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    holder = subprocess.Popen(spaces, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        yield _Machine(place, holder.pid)
    finally:
        left = inhabitants(holder.pid)
        for process in left:
            os.kill(process, signal.SIGKILL)
        holder.wait()
        for process in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _takes_part(contender: str, cell: Cell, cells: list[Cell]) -> bool:
    """Whether *contender* is measured in *cell*: ours with less help only on a few links."""
    return contender not in (_PLAIN, _EAGER) or (len(cells) > 3 and cell in _LARGE_CELLS)


def _columns(subjects: list[_Subject]) -> Iterator[str]:
    for subject in subjects:
        yield from (f"{subject.size / 1e6:,.0f} MB, s", "× ours", "CPU, s", "MB")


def _rows(subjects: list[_Subject]) -> Iterator[tuple[str, ...]]:
    order = dict.fromkeys(key for subject in subjects for key in subject.results)
    for cell, contender in order:
        cells = []
        for subject in subjects:
            found = subject.results.get((cell, contender))
            if found is None:
                cells += [""] * 4
                continue
            ratio = found.seconds / subject.results[cell, _OURS].seconds
            cells += [f"{found.seconds:.2f}", f"{ratio:.1f}"]
            counted = contender != _DOCKER  # its daemon does the work
            cells += [f"{found.processor:.1f}" if counted else "", f"{found.fetched / 1e6:.0f}"]
        yield (f"{cell[0][0]}, {cell[1]} ms", contender, *cells)


def _verdicts(subjects: list[_Subject]) -> Iterator[Verdict]:
    first, last = subjects[0], subjects[-1]
    work = "job start → first build"
    for (name, trip), most in _WANTED.items():
        found = next(
            value
            for ((link, ms), who), value in first.results.items()
            if (link[0], ms, who) == (name, trip, _OURS)
        )
        took = found.seconds
        yield Verdict(f"{work}, {name}, {trip} ms", "–", f"{took:.2f} s", f"{most} s", took <= most)
    for subject, least in ((first, 1.0), (last, _TIMES_FASTER)):
        worst = min(
            (found.seconds / subject.results[cell, _OURS].seconds, cell, who)
            for (cell, who), found in subject.results.items()
            if not who.startswith(_OURS)
        )
        ratio, ((name, _), trip), who = worst
        about = f"{work}, {subject.size / 1e6:,.0f} MB, every link"
        against = f"{who} at {name}, {trip} ms, the nearest"
        yield Verdict(about, against, f"{ratio:.1f} × faster", f"{least:g} ×", ratio >= least)
    growth = max(
        last.results[cell, _OURS].seconds / first.results[cell, _OURS].seconds
        for cell in _LARGE_CELLS
    )
    yield Verdict(
        f"{work}, at {last.size / first.size:.1f} times the size",
        "its time",
        f"{growth:.2f} ×",
        f"{_GROWTH:g} ×",
        growth <= _GROWTH,
    )
    setup = min(v.parts[0] for (cell, who), v in first.results.items() if who == _OURS)
    yield Verdict("setting up, from the bundle", "–", f"{setup:.2f} s", "1.0 s", setup <= 1.0)


def _notes(subjects: list[_Subject]) -> Iterator[str]:
    for subject in subjects:
        for (cell, who), found in subject.results.items():
            if who == _OURS and cell == _CELLS[0]:
                setup, use, build = found.parts
                size = f"{subject.size / 1e6:,.0f} MB"
                yield (
                    f"Ours at {cell[0][0]} without delay, {size}: {setup:.2f} s to set up,"
                    f" {use:.2f} s until the store is there, {build:.2f} s to build; the serving"
                    f" process had at most {found.resident / 2**20:.0f} MiB in memory."
                )
