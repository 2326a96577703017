"""Checks this machine, and what it speaks to, for all that nix-seed needs of them.

Nothing is mended, and nothing is printed. Each check ends in diagnoses, whatever happens in it: one
that breaks hides no other. Nix is looked at as the user's own commands would have it. Of logs and
registries their time is asked as well.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.core.events import Stage, tell
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import git_version
from nix_seed.flake.nix import SHOW_SETTINGS, Nix, parse_settings, read_settings
from nix_seed.logs.open import open_history
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import Patience
from nix_seed.registry.http import Transport
from nix_seed.registry.open import Stores
from nix_seed.registry.rules.http import date
from nix_seed.release.load import load_policy
from nix_seed.setup.rules import diagnosis
from nix_seed.setup.rules.diagnosis import Diagnosis, Health
from nix_seed.trust.rules.policy import Policy, PolicyLog, log_trust
from nix_seed.trust.rules.policy_checks import policy_warnings
from nix_seed.use.engines import ENGINES
from nix_seed.use.engines.bwrap import why_no_namespaces
from nix_seed.use.engines.containers import why_no_start
from nix_seed.use.engines.mounted import why_not_mounted
from nix_seed.use.macos_store import Machine

# Its builder is a part of Nix, so that no sandbox can hide it; the output is an empty directory.
_BUILD = """derivation {{
  name = "nix-seed-doctor";
  system = builtins.currentSystem;
  builder = "builtin:buildenv";
  derivations = "";
  manifest = "/dev/null";
  nonce = "{}";
}}"""


def _settings_of(nix: Nix) -> dict[str, str]:
    """Return Nix's settings; where commands are still experimental, that they are off shows."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "NIX_PAGER": "cat"}
    program = str(nix.bin_dir / "nix") if nix.bin_dir else "nix"
    for words in SHOW_SETTINGS:
        # Not by Nix.run, which turns on what it needs.
        plain = subprocess.run(
            [program, *words], capture_output=True, text=True, env=environment, check=False
        )
        if plain.returncode == 0:
            return parse_settings(plain.stdout)
    return read_settings(nix) | {"experimental-features": ""}


def _try_build(nix: Nix) -> None:
    """Build something new and empty, and delete it; ``NixFailed`` where builds do not work."""
    doing = "building an empty directory"
    expression = _BUILD.format(uuid.uuid4())
    arguments = ["--no-out-link", "--quiet", "--expr", expression]
    path = nix.run("nix-build", arguments, doing).strip()
    # Left for the garbage collector where somebody uses it, which nobody does.
    subprocess.run(["nix-store", "--delete", "--quiet", path], capture_output=True, check=False)


# Whoever asks a doctor is there, and waits.
_PATIENCE = Patience(attempts=1, connect=5.0, stall=10.0, settle=10.0)
_LOGIN = "docker login {0} (or podman login {0}), or set NIX_SEED_REGISTRY_TOKEN"


_Readings = list[diagnosis.Reading]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is looked at: the machine's or another *nix*, places on disk, and what is reached.

    That are the logs of the *policy* file, None where there is none, and *registries*. *now* is
    this machine's time, *machine* is where macOS has its files.
    """

    nix: Nix
    cache: Path
    state: Path
    now: datetime
    stores: Stores = field(default_factory=partial(Stores, Keyring()))
    policy: Path | None = None
    registries: tuple[str, ...] = ()
    machine: Machine = field(default_factory=Machine)
    system: str = sys.platform


def check_reach(setup: Setup) -> Iterator[Diagnosis]:
    """Check policy, logs, credentials, registries and, by whoever answered, the clock."""
    readings: _Readings = []
    logs: tuple[PolicyLog, ...] = ()
    if setup.policy is not None:
        try:
            policy = load_policy(setup.policy, setup.now).policy
        except Exception as error:
            yield diagnosis.diagnose_error("policy", setup.policy.name, error)
        else:
            yield from _policy(policy, setup.policy, setup.now)
            logs = policy.logs
    for log in logs:
        tell(Stage("check", f"asking the log {log.id}"))
        yield _log(log, policy, setup, readings)
    yield from _credentials(setup)
    for host in setup.registries:
        tell(Stage("check", f"asking {host}"))
        yield _registry(host, setup, readings)
    clock = diagnosis.judge_clock(readings)
    if clock is not None:
        yield clock
    elif setup.registries or any("://" in (log.url or "") for log in logs):
        said = "none of the servers above could be asked for its time"
        yield Diagnosis("clock", "skew", Health.UNCHECKED, said, "reach one of them, and try again")


def _policy(policy: Policy, path: Path, now: datetime) -> Iterator[Diagnosis]:
    until = f"epoch {policy.epoch}, until {policy.expires:%Y-%m-%d}"
    yield Diagnosis("policy", path.name, Health.FINE, until)
    for warning in policy_warnings(policy, now):
        fix = f"edit {path}, if you did not mean that"
        if "expires" in warning:
            fix = f"write its next epoch, with a later `expires`, into {path}"
        yield Diagnosis("policy", "warning", Health.WARNING, warning, fix)


def _log(log: PolicyLog, policy: Policy, setup: Setup, readings: _Readings) -> Diagnosis:
    if log.url is None:
        said = "the policy does not say where it is"
        return Diagnosis("logs", log.id, Health.WARNING, said, f"give {log.id} a url in the policy")
    trusted = next(each for each in log_trust(policy).logs if each.id == log.id)
    place = log.url if "://" in log.url else str((setup.policy or Path()).parent / log.url)
    try:
        if "://" in place:
            _read_clock(place, readings, setup)
        signed = open_history(trusted, place, patience=_PATIENCE).checkpoint()
    except Exception as error:
        return diagnosis.diagnose_error("logs", log.id, error)
    said = f"{place} answers: {signed.head.size} entries, signed by the policy's key"
    return Diagnosis("logs", log.id, Health.FINE, said)


def _read_clock(url: str, readings: _Readings, setup: Setup) -> None:
    """Add the time at *url* to *readings*: the ``Date`` of any answer (RFC 9110, 6.6.1), if told.

    Half of the way there and back is taken for the way back.
    """
    plain = frozenset(setup.registries) if setup.stores.plain_http else frozenset[str]()
    transport = Transport(_PATIENCE, os.environ, plain=plain, ca_file=setup.stores.ca_file)
    before = datetime.now(UTC)
    answer = transport.send("HEAD", url, {})
    after = datetime.now(UTC)
    answer.close()
    with suppress(ValueError):
        there = date(answer.headers.get("Date", ""))
        middle = before + (after - before) / 2
        readings.append((url.split("/")[2], middle - there))


def _credentials(setup: Setup) -> Iterator[Diagnosis]:
    """Look for credentials where pushes would; what they are is never shown, but whose."""
    keyring = setup.stores.credentials
    try:
        known = keyring.registries()
    except InputError as error:
        yield diagnosis.diagnose_error("credentials", "files", error)
        return
    for host in dict.fromkeys([*known, *setup.registries]):
        registry, _, repository = host.partition("/")
        try:
            found = keyring.find(registry, repository)
        except Exception as error:
            yield diagnosis.diagnose_error("credentials", host, error)
            continue
        if found is not None:
            yield Diagnosis("credentials", host, Health.FINE, str(found))
            continue
        said = "none: what is public can be pulled, and nothing pushed"
        yield Diagnosis("credentials", host, Health.WARNING, said, _LOGIN.format(host))
    if not known and not setup.registries:
        said = "no registry has any: what is public can be pulled, and nothing pushed"
        yield Diagnosis("credentials", "any", Health.FINE, said)


def _registry(host: str, setup: Setup, readings: _Readings) -> Diagnosis:
    """Ask *host* for its API version, as every client begins (distribution-spec, end-1)."""
    try:
        base = replace(setup.stores, patience=_PATIENCE).session(host).base()
        _read_clock(f"{base}/v2/", readings, setup)
    except Exception as error:
        return diagnosis.diagnose_error("registries", host, error)
    return Diagnosis("registries", host, Health.FINE, f"{base} answers")


_PINNED = {"zstandard": "0.25.0", "deflate": "0.9.0"}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Words of Nix's errors, and what to do about each; the first that fits.
_BUILD_FIXES = (
    ("build hook", diagnosis.HOOK_FIX),
    ("build-remote", diagnosis.HOOK_FIX),
    ("executing '", diagnosis.HOOK_FIX),
    (
        "getting attributes of path",
        "Nix's sandbox wants that file: install the package that has it (Debian: bash-static), or"
        " set sandbox-paths in nix.conf",
    ),
    ("cannot connect to", "start Nix's daemon: systemctl start nix-daemon"),
    ("Permission denied", "the store is not this user's: start Nix's daemon, or run as its owner"),
)


def check_setup(setup: Setup) -> tuple[Diagnosis, ...]:
    """Check everything that needs no image."""
    found: list[Diagnosis] = []
    for area, name, check in (
        ("python", "version", _python),
        ("nix", "version", _nix),
        ("tools", "git", _git),
        ("engines", "any", _engines),
        ("macOS", "store", _macos),
        ("disk", "cache", _disk),
    ):
        tell(Stage("check", f"checking {area}"))
        found += _checked(area, name, check, setup)
    return (*found, *check_reach(setup))


def _checked(
    area: str, name: str, check: Callable[[Setup], Iterable[Diagnosis]], setup: Setup
) -> Iterator[Diagnosis]:
    """Yield what *check* finds, and what breaks it, as a diagnosis of *name*."""
    try:
        yield from check(setup)
    except Exception as error:
        yield diagnosis.diagnose_error(area, name, error)


def _python(_setup: Setup) -> Iterator[Diagnosis]:
    """Python, and the libraries that decide digests."""
    # An older one than 3.11 would not have come this far.
    yield Diagnosis("python", "version", Health.FINE, platform.python_version())
    yield _compressors()


def _compressors() -> Diagnosis:
    from importlib.metadata import PackageNotFoundError, version

    why = "another version compresses to other bytes, and so to other digests"
    wrong = []
    for name, wanted in _PINNED.items():
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "missing"
        if here != wanted:
            wrong.append(f"{name} is {here}, not {wanted}")
    if wrong:
        pins = " ".join(f"{name}=={wanted}" for name, wanted in _PINNED.items())
        said = ", ".join(wrong)
        fix = f"pip install {pins}"
        return Diagnosis("python", "compressors", Health.WARNING, said, fix, why)
    said = ", ".join(f"{name} {wanted}" for name, wanted in _PINNED.items())
    return Diagnosis("python", "compressors", Health.FINE, said, why=why)


def _nix(setup: Setup) -> Iterator[Diagnosis]:
    """Nix itself, its settings, and whether it builds."""
    nix = setup.nix
    if not nix.is_at_hand():
        said = "not installed, or not on PATH"
        why = "recipes are evaluated, and their closures built, by Nix"
        yield Diagnosis("nix", "version", Health.FALSE, said, diagnosis.INSTALL_NIX, why)
        return
    yield diagnosis.judge_nix_version(nix.version())
    yield from _checked("nix", "settings", _settings, setup)
    try:
        _try_build(nix)
    except Exception as error:
        yield _no_build(error)
    else:
        yield Diagnosis("nix", "a build", Health.FINE, "the store is writable, and builds work")


def _settings(setup: Setup) -> Iterator[Diagnosis]:
    settings = _settings_of(setup.nix)
    hook = settings.get("build-hook", "nix").split(" ")[0]
    linux = setup.system.startswith("linux")
    yield from diagnosis.judge_settings(settings, linux=linux, hook_exists=_is_program(hook))


def _is_program(name: str) -> bool:
    return bool(name) and (shutil.which(name) is not None or Path(name).exists())


def _no_build(error: Exception) -> Diagnosis:
    found = diagnosis.diagnose_error("nix", "a build", error)
    text = _ANSI.sub("", found.said)
    words = [line.strip() for line in text.splitlines()]
    reasons = [line for line in words if line.startswith("error:") and line != "error:"]
    said = "\n".join([words[0], *reasons[-3:]])
    own = getattr(error, "hint", None) or "see Nix's own words"
    fix = next((fix for part, fix in _BUILD_FIXES if part in text), own)
    return Diagnosis("nix", "a build", Health.FALSE, said, fix)


def _git(_setup: Setup) -> Iterator[Diagnosis]:
    """Git, by which Nix reads flakes."""
    if shutil.which("git") is None:
        said, fix = "not on PATH", "apt-get install git"
        why = "Nix reads a flake in a repository with it"
        yield Diagnosis("tools", "git", Health.FALSE, said, fix, why)
        return
    version = git_version()
    if version is None:
        fix = "apt-get install --reinstall git"
        yield Diagnosis("tools", "git", Health.FALSE, "it does not tell its version", fix)
        return
    yield Diagnosis("tools", "git", Health.FINE, version)


def _engines(setup: Setup) -> Iterator[Diagnosis]:
    """What runs images; on macOS there is nothing to run them with, nor need there be."""
    if not setup.system.startswith("linux"):
        return
    reasons: dict[str, str | None] = {}
    for name, make in ENGINES.items():
        try:
            reasons[name] = make(setup.cache).unavailable()
            if reasons[name] is None and name in ("podman", "docker"):
                reasons[name] = why_no_start(name)
        except Exception as error:
            reasons[name] = f"it could not be asked: {error}"
    yield from diagnosis.judge_engines(reasons)
    yield _namespaces()
    yield _mount()


def _namespaces() -> Diagnosis:
    try:
        said = why_no_namespaces()
    except CouldNotCheck as error:
        fix = error.hint or ""
        return Diagnosis("engines", "user namespaces", Health.UNCHECKED, error.message, fix)
    if said is None:
        return Diagnosis("engines", "user namespaces", Health.FINE, "allowed")
    fix = (
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, kernel.unprivileged_userns_clone=1"
    )
    why = "engines and Nix's sandbox need them where they do not run as root"
    return Diagnosis("engines", "user namespaces", Health.WARNING, said, fix, why)


def _mount() -> Diagnosis:
    problem = why_not_mounted()
    if problem is None:
        return Diagnosis("engines", "mount", Health.FINE, "images can be mounted")
    fix = "modprobe fuse; chmod 666 /dev/fuse, or root; user namespaces as above"
    why = "without it images are unpacked before a command starts, which takes seconds longer"
    return Diagnosis("engines", "mount", Health.WARNING, problem, fix, why)


def _macos(setup: Setup) -> Iterator[Diagnosis]:
    """The place for /nix, which a Mac's read-only root has none of its own for."""
    if setup.system != "darwin":
        return
    machine = setup.machine
    if machine.nix.is_dir():
        yield Diagnosis("macOS", "store", Health.FINE, f"{machine.nix} is there")
        return
    said = f"there is no {machine.nix}"
    fix = "`sudo nix-seed hydrate REF` makes a volume for it, or an installer of Nix does"
    yield Diagnosis("macOS", "store", Health.WARNING, said, fix)


def _disk(setup: Setup) -> Iterator[Diagnosis]:
    """Room for images and layers, for what logs showed, and for the store."""
    places: Mapping[str, tuple[Path, str]] = {
        "cache": (setup.cache, "NIX_SEED_CACHE"),
        "state": (setup.state, "NIX_SEED_STATE"),
    }
    for name, (place, variable) in places.items():
        nearest = next(each for each in (place, *place.parents) if each.exists())
        problem = None
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"nix-seed")
        except OSError as error:
            problem = error.strerror or str(error)
        free = shutil.disk_usage(nearest).free
        yield diagnosis.judge_room(name, str(place), free, problem, variable)
