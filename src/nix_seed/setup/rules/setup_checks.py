"""What makes a machine fit for nix-seed, judged from facts that others collected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from nix_seed.flake.rules.nix_version import parse_nix_version
from nix_seed.setup.rules.diagnosis import Diagnosis, Health

HOOK_FIX: Final = (
    "take build-hook out of nix.conf; or make it a link to Nix, named build-remote:"
    ' ln -s "$(command -v nix)" …/build-remote'
)
INSTALL_NIX: Final = (
    "apt-get install nix-bin on Debian 13, Ubuntu 24.04 and newer; else https://nixos.org/download"
)
OLDEST_NIX: Final = (2, 8)
# nixpkgs' lib/minver.nix.
_NIXPKGS_WANTS: Final = (2, 18)
_SKEW_FALSE, _SKEW_WARNING = timedelta(minutes=5), timedelta(seconds=30)
_LEAST_ROOM, _LITTLE_ROOM = 1 << 30, 5 << 30
_INSTALL_ENGINE = (
    "apt-get install bubblewrap mount util-linux (or podman, or Docker Engine 23 and newer)"
)


def judge_nix_version(text: str) -> Diagnosis:
    """Judge what ``nix --version`` printed."""
    found = parse_nix_version(text)
    if found is None:
        fix = "is the first `nix` on PATH really Nix?"
        return Diagnosis("nix", "version", Health.UNCHECKED, f"it says {text!r}", fix)
    said = f"{found.version} ({found.fork})"
    if found.number < OLDEST_NIX:
        return Diagnosis("nix", "version", Health.FALSE, said, "install Nix 2.8 or newer")
    if found.number < _NIXPKGS_WANTS:
        said += ": too old to evaluate a current nixpkgs, which wants 2.18"
        fix = f"install a newer one: {INSTALL_NIX}"
        return Diagnosis("nix", "version", Health.WARNING, said, fix)
    return Diagnosis("nix", "version", Health.FINE, said)


def judge_settings(
    settings: Mapping[str, str], *, linux: bool, hook_exists: bool
) -> Iterator[Diagnosis]:
    """Judge Nix's *settings*, as ``nix show-config`` gives them; *hook_exists*: build-hook's."""
    yield _features(settings)
    sandbox = settings.get("sandbox", "")
    if linux and sandbox != "true":
        fix = "set sandbox = true in nix.conf; policies may demand it (requireSandbox)"
        said = f"it is {sandbox or 'not known'}: builds see this machine"
        yield Diagnosis("nix", "sandbox", Health.WARNING, said, fix)
    else:
        yield Diagnosis("nix", "sandbox", Health.FINE, sandbox or "as this system has it")
    hook = settings.get("build-hook")
    if hook is None or hook_exists:
        yield Diagnosis("nix", "build-hook", Health.FINE, hook or "as this Nix has it")
        return
    name = hook.split(" ")[0]
    said = f"{name} is not there" if name else "it is set to nothing"
    why = "Nix asks this program for remote builders, and no build goes on without its answer"
    yield Diagnosis("nix", "build-hook", Health.FALSE, said, HOOK_FIX, why)


def _features(settings: Mapping[str, str]) -> Diagnosis:
    missing = {"flakes", "nix-command"} - set(settings.get("experimental-features", "").split())
    if missing:
        return Diagnosis(
            "nix",
            "experimental features",
            Health.WARNING,
            f"{' and '.join(sorted(missing))}: off, but for nix-seed's own calls",
            "for plain `nix build`: experimental-features = nix-command flakes in nix.conf",
        )
    return Diagnosis("nix", "experimental features", Health.FINE, "flakes nix-command")


def judge_engines(reasons: Mapping[str, str | None]) -> Iterator[Diagnosis]:
    """Judge engines by why each cannot be used (None: it can). One is enough."""
    usable = [name for name, reason in reasons.items() if reason is None]
    for name, reason in reasons.items():
        if reason is None:
            words = "usable" if name == "bwrap" else "started a container"
            yield Diagnosis("engines", name, Health.FINE, words)
            continue
        said, _, fix = reason.partition("; ")
        outcome = Health.WARNING if usable else Health.FALSE
        yield Diagnosis("engines", name, outcome, said, fix or _engine_fix(name, said))
    if not usable:
        said = "none can be used: `run`, `prove` and `doctor IMAGE` need one"
        yield Diagnosis("engines", "any", Health.FALSE, said, _INSTALL_ENGINE)


def _engine_fix(name: str, said: str) -> str:
    if "zstd" in said:
        return "install a newer Docker Engine, or build with --compressor gzip for this one"
    if "it starts no container" in said:
        variable = f"NIX_SEED_{name.upper()}_RUN_ARGS"
        return f"`{name} run` must work; options that it needs here go into {variable}"
    if name == "docker":
        return "start its daemon, or join the group docker; `docker version` must succeed"
    return f"`{name} info` must succeed"


@dataclass(frozen=True, slots=True)
class Reading:
    """The time *there*, when it was *here* on this machine; *source* is a server."""

    source: str
    here: datetime
    there: datetime

    @property
    def skew(self) -> timedelta:
        """How far this machine is ahead."""
        return self.here - self.there


def judge_clock(readings: Sequence[Reading]) -> Diagnosis | None:
    """Judge this machine's clock by servers' own; None where none was read.

    The kindest reading counts: a server's clock may be the wrong one.
    """
    if not readings:
        return None
    best = min(readings, key=lambda each: abs(each.skew))
    seconds = round(abs(best.skew).total_seconds())
    side = "ahead of" if best.skew > timedelta(0) else "behind"
    said = f"{seconds} s {side} {best.source}"
    fix = "set the clock: timedatectl set-ntp true"
    why = "certificates of keyless signers last ten minutes, tokens of registries five"
    if abs(best.skew) > _SKEW_FALSE:
        return Diagnosis("clock", "skew", Health.FALSE, said, fix, why)
    if abs(best.skew) > _SKEW_WARNING:
        return Diagnosis("clock", "skew", Health.WARNING, said, fix, why)
    return Diagnosis("clock", "skew", Health.FINE, said, why=why)


@dataclass(frozen=True, slots=True)
class Room:
    """A *place* on disk, its *free* bytes, and why nothing can be written there, if so."""

    what: str
    place: str
    free: int
    problem: str | None
    variable: str


def judge_room(room: Room) -> Diagnosis:
    """Judge whether there is room, and leave to use it."""
    said = f"{room.place}: {room.free / 1e9:.1f} GB free"
    fix = f"make room there, or choose another place: {room.variable}=DIR"
    if room.problem is not None:
        fix = f"choose a place that you may write to: {room.variable}=DIR"
        said = f"{room.place} cannot be written to: {room.problem}"
        return Diagnosis("disk", room.what, Health.FALSE, said, fix)
    if room.free < _LEAST_ROOM:
        return Diagnosis("disk", room.what, Health.FALSE, said, fix)
    if room.free < _LITTLE_ROOM:
        return Diagnosis("disk", room.what, Health.WARNING, said, fix)
    return Diagnosis("disk", room.what, Health.FINE, said)
