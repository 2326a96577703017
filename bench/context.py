"""What the parts of a benchmark share: the closures they work on, and a place to work in."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.build import Destination, assemble_image, store_image
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.plan import Base, Plan, plan_image
from nix_seed.image.request import Request
from nix_seed.image.rules.frames import Compressor
from nix_seed.image.rules.partition import DEFAULT_BUDGET
from support.distribution import distribution, make_project, nix_env, upgraded, use_distribution
from support.seeds import write_project

__all__ = [
    "Context",
    "Subject",
    "Timing",
    "absent",
    "build_layout",
    "layout_of",
    "plan_of",
    "timed",
    "working",
]

# An office suite's core and another compiler, beside the usual ones: more than 1 GB.
_LARGE = ("libreoffice-core", "golang-1.19-go")
_OUTPUTS = """
      packages.x86_64-linux.default = pkgs.stdenv.mkDerivation {
        pname = "large"; version = "1.0"; src = ./.;
        buildInputs = with pkgs.debianPackages; [
          libreoffice-core pkgs.debianPackages."golang-1.19-go" pkgs.git pkgs.gdb pkgs.python3
        ];
        doCheck = false;
      };
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A real flake's image, and the image after one package of its input was upgraded.

    *after* was planned on the image of *before*, as ``seed.lock`` has it.
    """

    name: str
    flake: Path
    before: Plan
    after: Plan

    @property
    def infos(self) -> list[PathInfo]:
        return sorted(self.before.spec.paths.values(), key=lambda info: info.path)

    @property
    def nar_size(self) -> int:
        return sum(info.nar_size for info in self.infos)

    @property
    def about(self) -> str:
        """The closure in words."""
        count, size = len(self.before.spec.paths), self.nar_size / 1e6
        return f"{self.name}: {count} store paths, {size:,.0f} MB"


@dataclass
class Context:
    """How thoroughly to measure, where to work, and whom to tell."""

    quick: bool
    work: Path
    say: Callable[[str], None] = field(default=print)

    @property
    def rounds(self) -> int:
        """How often contenders take turns."""
        return 1 if self.quick else 3

    def directory(self, name: str) -> Path:
        """Return a new, empty directory."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))

    @cached_property
    def small(self) -> Subject:
        """The demo's seed, 0.5 GB; in a quick run its run image, some megabytes."""
        self.say("  making the demo flake, and one with a package upgraded")
        flake = make_project("two-packages", self.work / "small")
        kind = "run" if self.quick else "seed"
        return self._subject("a run image" if self.quick else "the demo's seed", flake, kind, ())

    @cached_property
    def large(self) -> Subject:
        """A seed of more than 1 GB; in a quick run the small subject."""
        if self.quick:
            return self.small
        self.say("  making a flake of more than 1 GB, and one with a package upgraded")
        base = distribution(*_LARGE)
        flake = write_project(self.work / "large", base, _OUTPUTS, {"Makefile": "all:\n"})
        return self._subject("a large seed", flake, "seed", _LARGE)

    def _subject(self, name: str, flake: Path, kind: str, extra: tuple[str, ...]) -> Subject:
        before = plan_of(flake, kind, None)
        # A library that a dozen packages need, the largest among them; or a file of certificates.
        changed = "libxml2" if extra else "ca-certificates"
        use_distribution(flake, upgraded(changed, *extra))
        return Subject(name, flake, before, plan_of(flake, kind, Base("before", before.spec)))


def plan_of(flake: Path, kind: str = "seed", base: Base | None = None) -> Plan:
    """Plan an image of *flake*, whatever licences it finds."""
    os.environ["NIX_CONFIG"] = nix_env()["NIX_CONFIG"]
    request = Request(
        str(flake),
        FlakeChoice("run" if kind == "run" else "seed"),
        Compressor.at_hand(),
        DEFAULT_BUDGET,
    )
    plan = plan_image(Nix(), request, base)
    # The registries here are the benchmark's own, even those behind a link that is not loopback.
    return replace(plan, spec=replace(plan.spec, unknown=()))


def layout_of(context: Context, subject: Subject) -> LayoutReference:
    """Build the subject's image into a layout, once."""
    return build_layout(subject.before, context.work / f"image-{subject.flake.name}", context.work)


def build_layout(plan: Plan, directory: Path, work: Path) -> LayoutReference:
    """Build the image of *plan* into the layout *directory*, unless it is there."""
    if not directory.exists():
        cache = LayerCache(work / "cache")
        store_image(
            assemble_image(Nix(), plan, cache), cache, Destination("oci", directory, "seed")
        )
    return LayoutReference(str(directory), tag="seed")


@contextmanager
def working(say: Callable[[str], None], *, quick: bool) -> Iterator[Context]:
    """Lend a context whose directory is gone afterwards."""
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield Context(quick, work, say)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall and CPU seconds, and MB that went through read calls, children's included."""

    seconds: float
    cpu: float
    read: int


def timed(action: Callable[[], object]) -> Timing:
    """Measure *action*."""
    read, before, start = _read_bytes(), os.times(), time.perf_counter()
    action()
    seconds, after = time.perf_counter() - start, os.times()
    return Timing(seconds, sum(after[:4]) - sum(before[:4]), _read_bytes() - read)


def _read_bytes() -> int:
    """Bytes that this process and the children it has waited for have read, pipes included."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError:
        return 0
    return int(text.split("rchar:")[1].split()[0])


@contextmanager
def absent(name: str, say: Callable[[str], None], missing: list[str]) -> Iterator[None]:
    """Go on where a peer is not at hand, and keep its name: *missing* is for the report."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "Skipped":  # pytest's, which is no Exception
            raise
        say(f"  without {name}: {error}")
        missing.append(f"{name} was not measured: {error}")
